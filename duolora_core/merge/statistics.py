"""What the gates say of each block and layer kind: mean |m| and how many components are alive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.layer_kinds import LayerKind, layer_kind
from .gates import DEAD_GATE, Gates
from .roles import Role
from .stack import LoraStack


@dataclass(frozen=True)
class BlockGates:
    """The gates of one block in numbers: mean |m|, and how many components are alive out of how many."""

    name: str
    role: Role
    content_mean: float
    style_mean: float
    content_active: int
    content_rank: int
    style_active: int
    style_rank: int


def block_statistics(gates: Gates, stack: LoraStack, roles: Mapping[str, Role]) -> list[BlockGates]:
    """One BlockGates per covered block, in forward order, so that a collapse of one role is seen."""
    magnitudes = gates.values.detach().abs().cpu()
    by_block: dict[str, list[str]] = {}
    for name in gates.slots:
        by_block.setdefault(stack.layout.layers[name].block.diffusers, []).append(name)
    rows: list[BlockGates] = []
    for block, names in by_block.items():
        content = torch.cat([magnitudes[gates.slots[name].content] for name in names])
        style = torch.cat([magnitudes[gates.slots[name].style] for name in names])
        rows.append(
            BlockGates(
                name=block,
                role=roles[names[0]],
                content_mean=float(content.mean()) if len(content) else 0.0,
                style_mean=float(style.mean()) if len(style) else 0.0,
                content_active=int((content >= DEAD_GATE).sum()),
                content_rank=len(content),
                style_active=int((style >= DEAD_GATE).sum()),
                style_rank=len(style),
            )
        )
    return rows


def active_components(gates: Gates) -> list[tuple[int, int]]:
    """(alive, all) rank components of each LoRA, in the stack's order."""
    alive, owners = gates.values.detach().abs().cpu() >= DEAD_GATE, gates.owners().cpu()
    count = max(len(slot.each) for slot in gates.slots.values())
    return [(int(alive[owners == i].sum()), int((owners == i).sum())) for i in range(count)]


def active_ranks(gates: Gates) -> dict[str, tuple[int, int]]:
    """{layer: (alive content components, alive style components)}, the data of the paper's Fig. 4."""
    alive = gates.values.detach().abs().cpu() >= DEAD_GATE
    return {name: (int(alive[slot.content].sum()), int(alive[slot.style].sum())) for name, slot in gates.slots.items()}


@dataclass(frozen=True)
class KindGates:
    """Mean |m| of both sides over the layers of one kind in one block; None where a side has no such layer."""

    block: str
    kind: LayerKind
    content_mean: float | None
    style_mean: float | None


def kind_statistics(gates: Gates, stack: LoraStack) -> list[KindGates]:
    """One KindGates for each kind in each covered block, blocks in forward order."""
    magnitudes = gates.values.detach().abs().cpu()
    grouped: dict[tuple[str, LayerKind], list[str]] = {}
    for name in gates.slots:
        block = stack.layout.layers[name].block.diffusers
        grouped.setdefault((block, layer_kind(name)), []).append(name)
    return [
        KindGates(
            block,
            kind,
            _mean([magnitudes[gates.slots[name].content] for name in names]),
            _mean([magnitudes[gates.slots[name].style] for name in names]),
        )
        for (block, kind), names in grouped.items()
    ]


def _mean(parts: Sequence[Tensor]) -> float | None:
    values = torch.cat(list(parts))
    return float(values.mean()) if len(values) else None
