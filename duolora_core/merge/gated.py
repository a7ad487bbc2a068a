"""All LoRAs of every layer, attached to a model behind gates, with another gate row for each sample of a batch.

    y = W x + up · (gate ⊙ (down · x)),   up = [U_c U_s] (out, R),   down = [D_c; D_s] (R, in),   R = r_c + r_s

Base model, each LoRA alone, their plain sum and the merge are the same network with another gate row, so all of them
are branches of one batched forward. Nothing is ever formed as out x in, the model's own weights are not touched, and a
convolution works the same way, its gate standing between the two convolutions. Neighbouring samples of one branch share
their products, and a LoRA whose gates are closed by the branch (the style LoRA's in the branch `content`) is not run.
Where the stack has a router, the merge alone goes through it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelMismatchError
from ..model.branches import Branch, branch_runs
from ..model.hooks import Change, add_low_rank, add_low_rank_each, hooked_layers, require_low_rank_layers
from .gates import Gates
from .stack import LoraStack
from .stacked import Stacked, stacked


class _Rows:
    """The networks of a batch's samples, and what is derived from them while they are in force.

    Attributes:
        branches: one for each sample
        runs: samples side by side that go through the same network
        gates: {(dtype, device, whether gradients are recorded): {layer: (batch, R)}}
    """

    def __init__(self, branches: tuple[Branch, ...]):
        self.branches = branches
        self.runs = branch_runs(branches)
        self.gates: dict[tuple[torch.dtype, torch.device, bool], Mapping[str, Tensor]] = {}


class GatedLora:
    """The stacked LoRAs of an attached model. Made by `attach`; `branches` says which one each sample takes."""

    def __init__(self, stack: LoraStack, gates: Gates):
        self.stack = stack
        self.gates = gates
        self._owners = gates.owners()
        self._numbers = {label: number for number, label in enumerate(stack.labels)}
        self._sizes = [slot.stop - slot.start for slot in gates.slots.values()]
        self._rows = _Rows(())  # of the `branches` in force
        self._stacks: dict[str, Stacked] = {}

    @contextmanager
    def branches(self, branches: Sequence[Branch]) -> Generator[None, None, None]:
        """Sets the network of each sample of the next forwards (and of the backward, if the model recomputes)."""
        previous, self._rows = self._rows, _Rows(tuple(branches))
        try:
            yield
        finally:
            self._rows = previous

    def add(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """A layer's output for the input x, (batch, …), plus what the gated LoRAs change; `output` is used up."""
        self._require_rows(name, x)
        stack = self._stack(name, module, x)
        runs = self._rows.runs
        if self._rows.branches == ("content", "style") and x.ndim == 3 and stack.half is not None:
            return add_low_rank_each(x, stack.up_halves, stack.down_halves, output)  # the teachers of a step
        for branch, samples in runs:
            ranks = self._ranks(stack, branch)
            if ranks.start == ranks.stop:
                continue
            merging = branch == "merge"
            gate = self._gate(name, x) if merging else None  # the others' gates are ones
            up, down = (stack.merge_up if merging else stack.up)[:, ranks], stack.down[ranks]
            if len(runs) == 1:
                return add_low_rank(module, x, up, down, output, gate)
            add_low_rank(module, x[samples], up, down, output[samples], None if gate is None else gate[samples])
        return output

    def down(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """All LoRAs' down factors of a layer as its kernels want them, in the dtype and on the device of x."""
        stack = self._stack(name, module, x)
        return stack.down[stack.whole]

    def _require_rows(self, name: str, x: Tensor) -> None:
        branches = self._rows.branches
        if not branches:
            raise RuntimeError("a model with attached gates was run outside of GatedLora.branches")
        if len(branches) != x.shape[0]:
            raise RuntimeError(f"{name} got a batch of {x.shape[0]} samples, but {len(branches)} gate rows are set")

    def _gate(self, name: str, x: Tensor) -> Tensor:
        """The layer's gates for each sample of x, (batch, gates of the layer), in its dtype and on its device.

        All layers' gates are converted together, when the first layer of a dtype asks: a kernel for a whole forward
        instead of one for each layer, and one in its backward.
        """
        key = x.dtype, x.device, torch.is_grad_enabled()
        if key not in self._rows.gates:
            matrix = torch.stack([self._branch_gates(branch) for branch in self._rows.branches]).to(x)  # (batch, total)
            self._rows.gates[key] = dict(zip(self.gates.slots, matrix.split(self._sizes, dim=1), strict=True))
        return self._rows.gates[key][name]

    def _branch_gates(self, branch: Branch) -> Tensor:
        values = self.gates.values
        if branch == "merge":
            return values
        if branch == "base":
            return torch.zeros_like(values)
        if branch == "sum":
            return torch.ones_like(values)
        return (self._owners == self._numbers[branch]).to(values)

    def _ranks(self, stack: Stacked, branch: Branch) -> slice:
        """The components whose gates the branch does not close."""
        if branch in self._numbers:
            return stack.parts[self._numbers[branch]]
        return slice(0, 0) if branch == "base" else stack.whole

    def shift(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """A layer's output for the input x, (batch, …), plus what the LoRAs' 1-D offsets change."""
        weight = self._offset(name, "weight", output)
        if weight is not None:
            output = output + along_channels(weight, output, module) * _normalised(module, x, name)
        bias = self._offset(name, "bias", output)
        return output if bias is None else output + along_channels(bias, output, module)

    def _offset(self, name: str, what: Literal["weight", "bias"], like: Tensor) -> Tensor | None:
        """The 1-D offset of each sample's network, (batch, channels), or None if no LoRA has one here."""
        offsets = [lora.offsets.get((name, what)) for lora in self.stack.loras]
        known = next((offset for offset in offsets if offset is not None), None)
        if known is None:
            return None
        every = torch.stack([torch.zeros_like(known) if offset is None else offset for offset in offsets])
        shares = torch.tensor([self._shares(branch) for branch in self._rows.branches], device=every.device)
        return (shares @ every.to(shares)).to(like)  # (batch, LoRAs) · (LoRAs, channels)

    def _shares(self, branch: Branch) -> list[float]:
        """How much of each LoRA's offsets is in a branch."""
        if branch in self._numbers:
            return [float(number == self._numbers[branch]) for number in range(len(self._numbers))]
        return [0.0 if branch == "base" else 1.0] * len(self._numbers)

    def _stack(self, name: str, module: nn.Module, x: Tensor) -> Stacked:
        """All LoRAs' factors in the dtype and on the device of x; made at the layer's first use and kept."""
        kept = self._stacks.get(name)
        if kept is None or kept.up.dtype != x.dtype or kept.up.device != x.device:
            kept = self._stacks[name] = stacked(
                module, [lora.layers.get(name) for lora in self.stack.loras], x, self.stack.router.get(name)
            )
        return kept


@contextmanager
def attach(modules: Mapping[str, nn.Module], stack: LoraStack, gates: Gates) -> Generator[GatedLora, None, None]:
    """Attaches all LoRAs to a model's layers and takes them off again, whatever happens inside.

    Args:
        modules: {canonical layer: module} of the model
        gates: read at every use of `GatedLora.branches`, so an optimiser may change `gates.values` in between

    Raises:
        ModelMismatchError: a layer of the stack is not in `modules`, or is neither linear nor an ungrouped convolution.
    """
    with hooked(modules, GatedLora(stack, gates)) as gated:
        yield gated


Attached = TypeVar("Attached", bound=GatedLora)


@contextmanager
def hooked(modules: Mapping[str, nn.Module], gated: Attached) -> Generator[Attached, None, None]:
    """`attach` for a GatedLora that is made already; raises the same."""
    stack = gated.stack
    require_low_rank_layers(modules, stack.names)
    offset_names = sorted({name for lora in stack.loras for name, _ in lora.offsets})
    missing = [name for name in offset_names if name not in modules]
    if missing:
        raise ModelMismatchError(f"Layer {missing[0]} of this model is missing, but a LoRA changes its weight or bias.")
    changes: list[tuple[str, Change]] = [(name, partial(gated.add, name)) for name in stack.names]
    changes += [(name, partial(gated.shift, name)) for name in offset_names]
    with hooked_layers(modules, changes):
        yield gated


def along_channels(values: Tensor, output: Tensor, module: nn.Module) -> Tensor:
    """(batch, channels) made broadcastable over an output whose channels are first (images) or last (tokens)."""
    if isinstance(module, nn.Conv2d | nn.GroupNorm):
        return values.view(*values.shape, *[1] * (output.ndim - 2))
    return values.view(values.shape[0], *[1] * (output.ndim - 2), values.shape[1])


def _normalised(module: nn.Module, x: Tensor, name: str) -> Tensor:
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    raise ModelMismatchError(f"Layer {name} is a {type(module).__name__}; a 1-D weight offset fits only norm layers.")
