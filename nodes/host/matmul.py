"""Linear layers that multiply in the compute dtype, where the host was told to multiply in a faster way."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import comfy.ops
import torch.nn.functional as F
from torch import Tensor, nn

_PLAIN = comfy.ops.disable_weight_init.Linear
"""The host's own linear layer, of which its faster ones are subclasses."""


@contextmanager
def plain_matmul(model: nn.Module) -> Generator[None, None, None]:
    """Inside, every linear layer of the host's own classes multiplies as a plain one; restored after.

    The fast products (fp8 of `--fast fp8_matrix_mult`, `fp8_e4m3fn_fast` and scaled fp8 files, fp16 of `--fast
    cublas_ops`) have no backward pass. Where the host falls back for inputs that need a gradient, the teachers would
    still take them, and the merge would learn the rounding of fp8 instead of the LoRAs.
    """
    with ExitStack() as originals:
        for module in model.modules():
            if not isinstance(module, _PLAIN) or type(module).__module__ != _PLAIN.__module__:
                continue  # a class of another pack: a cut gradient is told by the gated layer
            for name in ("forward", "forward_comfy_cast_weights"):
                if getattr(type(module), name) is not getattr(_PLAIN, name) and name not in module.__dict__:
                    setattr(module, name, partial(_plain_forward, module))
                    originals.callback(delattr, module, name)
        yield


def _plain_forward(module: Any, x: Tensor) -> Tensor:
    """x Wᵀ + b with the weight cast to the dtype of x and, where the file has one, times its scale."""
    weight, bias = comfy.ops.cast_bias_weight(module, x)
    scaled: Callable[[Tensor], Tensor] | None = getattr(module, "convert_weight", None)
    return F.linear(x, weight if scaled is None else scaled(weight), bias)
