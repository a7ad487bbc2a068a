"""What makes a model the one it is: the same after a restart and under patches, another after any change."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

SOURCE = Path(__file__).parent.parent.parent / "nodes" / "host" / "identity.py"


class Backup(NamedTuple):
    """What the host keeps of a weight while a patch is in force on it."""

    weight: Tensor


class Network(nn.Module):
    """Every kind of tensor that a model has."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv, self.norm = nn.Linear(8, 8), nn.Conv2d(64, 32, 3), nn.LayerNorm(8)
        self.sigmas = nn.Buffer(torch.arange(3.0))


@pytest.fixture(scope="module")
def identity() -> Callable[[Any], str]:
    """The module needs nothing of the host, whose folder cannot be imported without one."""
    spec = importlib.util.spec_from_file_location("identity_alone", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.identity


def scale(x: float, factor: float) -> float:
    return x * factor


def closure(factor: float) -> Callable[[float], float]:
    return lambda x: x * factor


class Adapter:
    """As the host keeps a LoRA that is patched in."""

    def __init__(self, strength: float):
        self.weights = (torch.full((4, 2), strength), None, 1.0)
        self.loaded_keys = {"a", "b", "c"}


class Patcher:
    """What identity looks at of a ModelPatcher."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32):
        torch.manual_seed(seed)
        self.model = Network().to(dtype)
        self.backup: dict[str, Backup] = {}
        self.patches: dict[str, Any] = {}
        self.object_patches: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.wrappers: dict[str, Any] = {"outer": {}}

    @contextmanager
    def use_ejected(self) -> Generator[None, None, None]:
        yield


def test_equal_models_have_one_identity(identity: Callable[[Any], str]) -> None:
    """Loaded again; in another memory layout; with a patch in force, when the host keeps the original."""
    expected = identity(Patcher())
    again = Patcher()
    again.model.conv.weight.data = again.model.conv.weight.data.contiguous(memory_format=torch.channels_last)
    assert identity(again) == expected
    with torch.no_grad():
        again.backup["linear.weight"] = Backup(again.model.linear.weight.detach().clone())
        again.model.linear.weight.add_(1)
    assert identity(again) == expected


def one_bias(patcher: Patcher) -> None:
    with torch.no_grad():
        patcher.model.linear.bias[0] += 1e-6


def later_sigmas(patcher: Patcher) -> None:
    patcher.model.sigmas.add_(1)


def further_trained(patcher: Patcher) -> None:
    with torch.no_grad():
        for parameter in patcher.model.parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))


CHANGES: dict[str, Callable[[Patcher], object]] = {
    "trained further": further_trained,
    "one bias": one_bias,
    "a buffer": later_sigmas,
    "a patch": lambda it: it.patches.update({"linear.weight": [(1.0, Adapter(0.1), 1.0, None, None)]}),
    "its weights": lambda it: it.patches.update({"linear.weight": [(1.0, Adapter(0.2), 1.0, None, None)]}),
    "its strength": lambda it: it.patches.update({"linear.weight": [(0.9, Adapter(0.1), 1.0, None, None)]}),
    "an object": lambda it: it.object_patches.update({"sampling": nn.Linear(2, 2)}),
    "an option": lambda it: it.model_options.update({"scale": 2}),
    "a function": lambda it: it.model_options.update({"f": scale}),
    "what it is bound to": lambda it: it.model_options.update({"f": partial(scale, factor=2.0)}),
    "something else": lambda it: it.model_options.update({"f": partial(scale, factor=3.0)}),
    "what it encloses": lambda it: it.model_options.update({"f": closure(2.0)}),
    "some other value": lambda it: it.model_options.update({"f": closure(3.0)}),
    "a wrapper": lambda it: it.wrappers["outer"].update({"mine": [scale]}),
    "a circle": lambda it: it.model_options.update({"self": it.model_options}),
}


def test_any_change_is_another_identity(identity: Callable[[Any], str]) -> None:
    found = {"none": identity(Patcher()), "seed": identity(Patcher(1)), "dtype": identity(Patcher(dtype=torch.float16))}
    found["fp8"] = identity(Patcher(dtype=torch.float8_e4m3fn))
    found["fp8 seed"] = identity(Patcher(1, dtype=torch.float8_e4m3fn))
    for name, change in CHANGES.items():
        patchers = [Patcher(), Patcher()]
        for patcher in patchers:
            torch.manual_seed(7)
            change(patcher)
        assert identity(patchers[0]) == identity(patchers[1]), name
        found[name] = identity(patchers[0])
    assert len(set(found.values())) == len(found)


class Watched(dict[str, object]):
    """Counts how often somebody looks into it."""

    looked_into = 0

    def __iter__(self) -> Iterator[str]:
        type(self).looked_into += 1
        return super().__iter__()


def test_what_many_things_share_is_looked_at_once_a_depth(identity: Callable[[Any], str]) -> None:
    """Eight layers of eight, each of which holds all of the next: 8⁸ ways down, and no more than one look each."""
    layer: list[Watched] = [Watched(leaf=i) for i in range(8)]
    for _ in range(7):
        layer = [Watched({f"{i}": each for i, each in enumerate(layer)}) for _ in range(8)]
    patcher = Patcher()
    patcher.model_options["graph"] = layer
    Watched.looked_into = 0
    identity(patcher)
    assert Watched.looked_into <= 64


def test_sharing_is_no_difference(identity: Callable[[Any], str]) -> None:
    """One thing in two places is the same as two equal things there."""
    once, twice = Patcher(), Patcher()
    shared = {"weights": torch.ones(3)}
    once.model_options["both"] = [shared, shared]
    twice.model_options["both"] = [{"weights": torch.ones(3)}, {"weights": torch.ones(3)}]
    assert identity(once) == identity(twice)
