"""Low-rank changes on the layers of a model: hooks that come off again, and the two products of a change.

    with hooked_layers(modules, [(name, change)]):
        model(x)                                  # the named layer puts out change(module, input, output)

Nothing is ever formed as out x in, the model's own weights are not touched, and a convolution works as a linear layer
does: its change is a narrow convolution followed by a 1 x 1 one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import ModelMismatchError

Change = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A layer, its input and its output, (batch, …), to the output that it should have; the given one may be used up."""


@contextmanager
def hooked_layers(
    modules: Mapping[str, nn.Module], changes: Iterable[tuple[str, Change]]
) -> Generator[None, None, None]:
    """Inside, every named layer is changed; whatever happens there, afterwards the model is what it was.

    Raises:
        ModelMismatchError: from a layer whose own product has no backward pass, when it meets an input that needs one.
    """
    with ExitStack() as hooks:  # takes off all of them, even when taking off one of them fails
        for name, change in changes:
            hooks.callback(modules[name].register_forward_hook(_hook(name, change)).remove)
        yield


def require_low_rank_layers(modules: Mapping[str, nn.Module], names: Iterable[str]) -> None:
    """Refuses layers that no LoRA can change.

    Raises:
        ModelMismatchError: a layer is not in `modules`, or is neither linear nor an ungrouped convolution.
    """
    for name in names:
        module = modules.get(name)
        plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if not plain:
            kind = "missing" if module is None else type(module).__name__
            raise ModelMismatchError(f"Layer {name} of this model is {kind}; a LoRA can change linear and conv layers.")


def as_kernels(module: nn.Module, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Flat factors (out, r) and (r, inputs) in the shapes in which the module's layer multiplies."""
    if isinstance(module, nn.Conv2d):
        h, w = module.kernel_size
        return rearrange(up, "out r -> out r 1 1"), rearrange(down, "r (c h w) -> r c h w", h=h, w=w)
    return up, down


def add_low_rank(
    module: nn.Module, x: Tensor, up: Tensor, down: Tensor, output: Tensor, gate: Tensor | None = None
) -> Tensor:
    """The output plus up · (gate ⊙ (down · x)); adds in place, and only what is returned may be used afterwards.

    The second product adds straight into the output, so no other tensor of its size is written and read again.

    Args:
        x: (batch, …) the layer's input
        up, down: as `as_kernels` gives them, in the dtype of x
        gate: (batch, r), or None for all ones
    """
    hidden = down_product(module, x, down)
    if isinstance(module, nn.Conv2d):
        output += F.conv2d(hidden if gate is None else hidden * gate[:, :, None, None], up)  # (batch, out, h, w)
        return output
    if gate is not None:
        hidden = hidden * gate.view(gate.shape[0], *[1] * (x.ndim - 2), -1)
    flat = _flat_base(output)
    if flat is not None and hidden.ndim > 2:
        return flat.addmm_(hidden.flatten(0, -2), up.T).view(output.shape)
    if x.ndim == 3:  # not through a flat view, which would be the same copies
        output.baddbmm_(hidden, up.T.expand(len(x), -1, -1))  # (batch, tokens, out)
    else:
        output += F.linear(hidden, up)  # (batch, …, out)
    return output


def down_product(module: nn.Module, x: Tensor, down: Tensor) -> Tensor:
    """The first product of a change: (batch, r, h, w) of a convolution, (batch, …, r) of a linear layer."""
    if isinstance(module, nn.Conv2d):
        return F.conv2d(x, down, None, module.stride, module.padding, module.dilation)
    return F.linear(x, down)


def add_low_rank_each(x: Tensor, ups: Tensor, downs: Tensor, output: Tensor) -> Tensor:
    """`add_low_rank` of a linear layer for two samples with a LoRA each, in two batched products.

    Args:
        x: (2, tokens, in)
        ups, downs: (2, r, out) and (2, in, r)
        output: (2, tokens, out)
    """
    return output.baddbmm_(torch.bmm(x, downs), ups)


def _flat_base(output: Tensor) -> Tensor | None:
    """The matrix (batch · …, out) of which a linear layer with a bias puts out a view; None where it is none.

    What is changed in place through a view has its gradient copied by autograd, whole and several times
    (`CopySlices`); what is changed itself has not.
    """
    base = output._base  # pyright: ignore[reportPrivateUsage]
    if base is None or base.ndim != 2 or base.shape != (output.shape[:-1].numel(), output.shape[-1]):
        return None
    return base if base.is_contiguous() and output.is_contiguous() else None


def _hook(name: str, change: Change) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if torch.is_grad_enabled() and x.requires_grad and not output.requires_grad:
            raise ModelMismatchError(
                f"Layer {name} ({type(module).__name__}) gives its input no gradient: a fast kernel without a backward "
                "pass computed it, and whatever lies before it would not be trained. Take away what put that kernel "
                "there: a node that speeds up the model, or --fast at ComfyUI's start."
            )
        return change(module, x, output)

    return hook
