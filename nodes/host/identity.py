"""What makes a MODEL, CLIP or VAE the one it is, as far as can be known without reading all of its weights.

Equal things have equal identities, also after a restart. Where something cannot be told from one run to the next (an
object whose content is an address or a counter), the identity changes, so that nothing is taken for what it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WHOLE, _LOOKED_AT = 1024, 64
"""Tensors of at most so many elements count whole; of larger ones so many are looked at, spread over all. Training a
checkpoint further moves all of its weights."""

_DEPTH = 10

Memo = dict[tuple[int, int], tuple[Any, bytes]]
"""{(id, depth): (the value itself, so that its id stays its own, its digest)}"""


def identity(patcher: Any) -> str:
    """sha256 of a ModelPatcher: its weights as in their file, patches on them, replaced objects, options, wrappers."""
    network, backup = patcher.model, patcher.backup
    with patcher.use_ejected():
        tensors = [*network.named_parameters(), *network.named_buffers()]
        held = {
            # Where patches are in force at this moment, the host keeps the original.
            "weights": {name: backup[name].weight if name in backup else tensor for name, tensor in tensors},
            "patches": patcher.patches,
            "objects": patcher.object_patches,
            "options": patcher.model_options,
            "wrappers": patcher.wrappers,
        }
    return _digest(held, (), {}).hex()


def clip_identity(clip: Any) -> str:
    """The same for CLIP, whose last layer and tokenizer can be set too."""
    settings = (clip.layer_idx, getattr(clip, "tokenizer_options", {}))
    return hashlib.sha256(_digest(settings, (), {}) + identity(clip.patcher).encode()).hexdigest()


def vae_identity(vae: Any) -> str:
    """The same for a VAE, and for what other packs hand out in a VAE's place."""
    patcher = getattr(vae, "patcher", None)
    return identity(patcher) if patcher is not None else _digest(vae, (), {}).hex()


def _digest(value: Any, inside: tuple[int, ...], memo: Memo) -> bytes:
    """sha256 of what tells a value apart from others: its type, and the digests of all that is in it.

    Args:
        inside: the ids of what it is a part of
        memo: each thing is looked at once at each depth, however many others hold it
    """
    if isinstance(value, _PLAIN):
        return _sha256([repr(value).encode("utf-8", "replace")])
    if isinstance(value, Tensor):  # a parameter or not: the host keeps originals either way
        return _sha256([f"{value.dtype}{tuple(value.shape)}".encode() + _sample(value)])
    kind = ",".join(f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__[:-1]).encode()
    if id(value) in inside or len(inside) >= _DEPTH:
        return _sha256([kind])
    key = id(value), len(inside)
    if key not in memo:
        within = [_digest(each, (*inside, id(value)), memo) for each in _content(value)]
        memo[key] = value, _sha256([kind, *within])
    return memo[key][1]


def _sha256(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()


def _content(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from (key, value[key])
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=repr)
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, nn.Module):
        yield value.state_dict()
        yield {name: held for name, held in vars(value).items() if isinstance(held, _PLAIN)}
    elif isinstance(value, FunctionType):
        yield from (value.__module__, value.__qualname__, value.__defaults__)
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                yield cell.cell_contents
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    else:
        yield getattr(value, "__dict__", None)


def _sample(tensor: Tensor) -> bytes:
    """The bits of evenly spaced elements; nothing of a kind of tensor that only its own kernels can read."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.element_size() not in _BITS or not tensor.numel():
        return b""
    bits = tensor.detach().view(_BITS[tensor.element_size()]) if tensor.ndim else tensor.detach().reshape(1)
    count = bits.numel()
    if count <= _WHOLE:
        return bits.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    places = np.unravel_index(np.linspace(0, count - 1, _LOOKED_AT).astype(np.int64), tuple(bits.shape))
    found = bits[tuple(torch.from_numpy(place).to(bits.device) for place in places)]
    return found.cpu().numpy().tobytes()
