"""Gated LoRAs against the plain formula, in which every branch is multiplied by its gates: float32, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.random_sdxl import checkpointed
from duolora_core import LoraPair
from duolora_core.merge.gated import GatedLora, hooked
from duolora_core.model.branches import Branch, branch_runs
from duolora_core.model.hooks import as_kernels
from tiny import VARIED, inputs, pick, run, tiny_unet, weighted_modules
from worlds import World, random_gates, world


class PlainFormula(GatedLora):
    """y = W x + up · (gate ⊙ (down · x)), run by run, with each layer's gates by themselves and ones where open."""

    def add(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        slot, branches = self.gates.slots[name], self._rows.branches
        gate = torch.stack([self._branch_gates(branch) for branch in branches])[:, slot.whole].to(x)  # (batch, R)
        parts = [lora.layers[name] for lora in self.stack.loras if name in lora.layers]
        up, down = (torch.cat([getattr(part, what) for part in parts], dim) for what, dim in (("up", 1), ("down", 0)))
        up, down = as_kernels(module, up.to(x), down.to(x))
        content = slot.content_rank
        for branch, samples in branch_runs(branches):
            ranks = slice(content if branch == "style" else 0, content if branch == "content" else len(down))
            if branch != "base" and ranks.start < ranks.stop:
                single = samples == slice(0, len(x))
                part, target = (x, output) if single else (x[samples], output[samples])
                _add(module, part, up[:, ranks], down[ranks], target, gate[samples, ranks])
        return output


def _add(module: nn.Module, x: Tensor, up: Tensor, down: Tensor, output: Tensor, gate: Tensor) -> None:
    if isinstance(module, nn.Conv2d):
        hidden = F.conv2d(x, down, None, module.stride, module.padding, module.dilation)
        output += F.conv2d(hidden * gate[:, :, None, None], up)
        return
    hidden = F.linear(x, down) * gate.view(gate.shape[0], *[1] * (x.ndim - 2), -1)
    if x.ndim == 3:
        output.baddbmm_(hidden, up.T.expand(len(x), -1, -1))
    else:
        output += F.linear(hidden, up)


TEACHERS: dict[str, tuple[Branch, ...]] = {
    "one step": ("content", "style"),
    "one step with its cycle": ("content", "content", "style", "style"),
    "reversed": ("style", "content"),
    "uneven": ("content", "style", "style"),
    "all kinds": ("base", "content", "merge", "merge", "style", "sum"),
}
STUDENTS: dict[str, tuple[Branch, ...]] = {
    "two": ("merge", "merge"),
    "four": ("merge", "merge", "merge", "merge"),
    "several runs": ("merge", "content", "base", "merge"),
}
RANKS = [(16, 16), (32, 16), (16, 32), (4, 3)]
"""Both LoRAs of one width, each padded to the other's, and not padded."""


@pytest.fixture(scope="module", params=RANKS, ids=lambda ranks: f"rank {ranks[0]} and {ranks[1]}")
def built(request: pytest.FixtureRequest) -> World:
    """Every kind of layer, some of them covered by one LoRA alone; the factors keep their rank in small layers."""
    names = pick(VARIED)
    content, style = ([n for i, n in enumerate(names) if i % apart] for apart in (5, 7))
    return world(content, style, request.param, "factors")


@pytest.mark.parametrize("rows", TEACHERS.values(), ids=TEACHERS)
def test_teachers_are_those_of_the_plain_formula(built: World, rows: tuple[Branch, ...]) -> None:
    outputs: list[Tensor] = []
    for kind in (GatedLora, PlainFormula):
        unet, gates = tiny_unet(torch.float32), random_gates(built.pair)
        with torch.no_grad(), hooked(weighted_modules(unet), kind(built.pair, gates)) as gated, gated.branches(rows):
            outputs.append(run(unet, *batch_of(len(rows))))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("saving", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("rows", STUDENTS.values(), ids=STUDENTS)
def test_students_and_gradients_are_those_of_the_plain_formula(
    built: World, rows: tuple[Branch, ...], saving: bool
) -> None:
    found = [student(kind, built.pair, rows, saving) for kind in (GatedLora, PlainFormula)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][1].count_nonzero() > 0.9 * found[0][1].numel()


def student(kind: type[GatedLora], pair: LoraPair, rows: Sequence[Branch], saving: bool) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of the gates."""
    unet, gates = tiny_unet(torch.float32), random_gates(pair)
    gates.values.requires_grad_()
    attached = hooked(weighted_modules(unet), kind(pair, gates))
    with checkpointed(unet) if saving else nullcontext(), attached as gated, gated.branches(rows):
        output = run(unet, *batch_of(len(rows)))
        output.square().sum().backward()
    assert gates.values.grad is not None
    return output.detach(), gates.values.grad


def batch_of(count: int) -> tuple[Tensor, Tensor, list[object]]:
    x, t, conditions = inputs(count)
    return x.float(), t, [*conditions]
