"""The result of a merge: its LoRAs and their masks, still adjustable, and the ordinary LoRA that they fold into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingsError
from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank, concat
from ..lora.parallel_layers import map_layers
from .gates import DEAD_GATE, Gates
from .stack import LoraStack, Side

Offsets = Mapping[tuple[str, str], Tensor]
"""{(layer, "weight" | "bias"): (channels,)}"""


@dataclass(frozen=True)
class MergedPart:
    """One LoRA of a merge: ΔW = U diag(m) D in every layer that it covers.

    Attributes:
        side: whether it is one of content or of style
        name: of its file; empty where it has none
        layers: {canonical UNet layer: LowRank}
        gates: {canonical UNet layer: (rank,)}
        text: {text-encoder layer: LowRank}, merged by strength alone
        offsets, text_offsets: 1-D changes of the UNet and of the text encoders, merged by strength alone
    """

    side: Side
    name: str
    layers: Mapping[str, LowRank]
    gates: Mapping[str, Tensor]
    text: Mapping[str, LowRank] = field(default_factory=dict[str, LowRank])
    offsets: Offsets = field(default_factory=dict[tuple[str, str], Tensor])
    text_offsets: Offsets = field(default_factory=dict[tuple[str, str], Tensor])

    def scaled(self, strength: float) -> MergedPart:
        """The same at another strength; at 0 nothing of it is left."""
        if not strength:
            return MergedPart(self.side, self.name, {}, {})
        return replace(
            self,
            layers={name: lora.scaled(strength) for name, lora in self.layers.items()},
            text={name: lora.scaled(strength) for name, lora in self.text.items()},
            offsets={key: strength * value for key, value in self.offsets.items()},
            text_offsets={key: strength * value for key, value in self.text_offsets.items()},
        )


@dataclass(frozen=True)
class MergedLora:
    """A merge with its LoRAs kept apart, so that their strengths can be set after training.

    Attributes:
        parts: one for each LoRA, those of content first
        shapes: {canonical UNet layer: weight shape}
        recipe: what the merge was made from, as plain JSON data
    """

    parts: tuple[MergedPart, ...]
    shapes: Mapping[str, tuple[int, ...]]
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def names(self) -> tuple[str, ...]:
        """Every UNet layer that a part covers."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.layers))

    def with_strengths(self, strengths: Sequence[float]) -> MergedLora:
        """The same merge with a strength for each LoRA; 1 is as trained, at 0 it leaves no trace.

        Raises:
            SettingsError: there are more or fewer strengths than LoRAs.
        """
        if len(strengths) != len(self.parts):
            raise SettingsError(f"This merge is of {len(self.parts)} LoRAs, but {len(strengths)} strengths are given.")
        parts = tuple(part if s == 1 else part.scaled(s) for part, s in zip(self.parts, strengths, strict=True))
        return replace(self, parts=parts)

    def fold(
        self,
        content_strength: float = 1.0,
        style_strength: float = 1.0,
        max_rank: int | None = None,
        dead_gate: float = DEAD_GATE,
    ) -> FoldedLora:
        """The ordinary LoRA: up' = up, down' = gate ⊙ down, dead components dropped.

        Args:
            content_strength, style_strength: any real number; a side at 0 leaves no trace in the file
            max_rank: recompress every layer to at most this rank by SVD
            dead_gate: components with a smaller |gate| are dropped; 0 keeps all that are not exactly 0

        Raises:
            SettingsError: `max_rank` is below 1.
        """
        if max_rank is not None and max_rank < 1:
            raise SettingsError(f"max_rank is {max_rank}; the smallest rank of a LoRA is 1.")
        strengths = [content_strength if part.side == "content" else style_strength for part in self.parts]
        parts = [(part, strength) for part, strength in zip(self.parts, strengths, strict=True) if strength]
        terms = {
            name: [(p.layers[name], p.gates[name] * s, p.gates[name]) for p, s in parts if name in p.layers]
            for name in self.names
        }
        folded = map_layers(lambda _, layer: _fold(layer, max_rank, dead_gate), terms)
        folded_text = map_layers(
            lambda _, whole: _keep(whole, torch.ones(whole.rank, dtype=torch.bool), max_rank),
            _sum_text([(part.text, strength) for part, strength in parts]),
        )
        kept = [layer for layer in (*folded.values(), *folded_text.values()) if layer is not None]
        lost, total = sum(layer.lost for layer in kept), sum(layer.total for layer in kept)
        return FoldedLora(
            layers={name: layer.kept for name, layer in folded.items() if layer is not None and layer.kept.rank},
            text={name: layer.kept for name, layer in folded_text.items()},
            offsets=_sum_offsets([(part.offsets, strength) for part, strength in parts]),
            shapes=self.shapes,
            error=(lost / total) ** 0.5 if total > 0 else 0.0,
            text_offsets=_sum_offsets([(part.text_offsets, strength) for part, strength in parts]),
        )


def make_merged(stack: LoraStack, gates: Gates, recipe: Mapping[str, Any] | None = None) -> MergedLora:
    """A snapshot of the gates on their stack; later training does not change it."""
    values = gates.values.detach().cpu().clone()
    parts = tuple(
        MergedPart(
            side="content" if number < len(stack.contents) else "style",
            name=lora.file.name,
            layers=layers,
            gates={name: values[gates.slots[name].each[number]] for name in layers},
            text=lora.text,
            offsets=lora.offsets,
            text_offsets=lora.text_offsets,
        )
        for number, (lora, layers) in enumerate(zip(stack.loras, routed_layers(stack), strict=True))
    )
    offsets = {name for lora in stack.loras for name, _ in lora.offsets}
    names = (*stack.names, *sorted(offsets - set(stack.names)))
    return MergedLora(parts, {name: stack.layout.layers[name].shape for name in names}, dict(recipe or {}))


def routed_layers(stack: LoraStack) -> list[Mapping[str, LowRank]]:
    """The layers of each LoRA as the merge uses them: with the router's up, where there is one."""
    if not stack.router:
        return [lora.layers for lora in stack.loras]

    def routed(name: str, router: Tensor) -> list[LowRank | None]:
        present = [lora.layers.get(name) for lora in stack.loras]
        up = torch.cat([each.up for each in present if each is not None], dim=1)
        ups = iter((up @ router.to(up)).split([each.rank for each in present if each is not None], dim=1))
        return [None if each is None else LowRank(next(ups), each.down) for each in present]

    found = map_layers(routed, stack.router)
    return [
        {name: layer for name, layers in found.items() if (layer := layers[number]) is not None}
        for number in range(len(stack.loras))
    ]


def joined(content: FoldedLora | None, style: FoldedLora | None, recipe: Mapping[str, Any] | None = None) -> MergedLora:
    """Ordinary LoRAs as a merge with all masks open: their sum, with a strength for each. None: no such side."""
    both: tuple[tuple[Side, FoldedLora | None], ...] = ("content", content), ("style", style)
    sides: list[tuple[Side, FoldedLora]] = [(side, lora) for side, lora in both if lora is not None]
    parts = tuple(
        MergedPart(
            side,
            "",
            lora.layers,
            {name: torch.ones(layer.rank) for name, layer in lora.layers.items()},
            lora.text,
            lora.offsets,
            lora.text_offsets,
        )
        for side, lora in sides
    )
    return MergedLora(parts, {k: v for _, lora in sides for k, v in lora.shapes.items()}, dict(recipe or {}))


def combine(merges: Sequence[MergedLora], weights: Sequence[float] | None = None) -> MergedLora:
    """Σ α_i · merge_i for several subjects (section 3.5), exact by concatenation; the roles stay adjustable.

    α_i = 1/n by default, as in the paper; equal weights of 1 keep each identity stronger.

    Raises:
        SettingsError: nothing to combine, another number of weights than merges, or merges made for different models.
    """
    if not merges:
        raise SettingsError("Nothing to combine: connect at least one merged LoRA.")
    alphas = [1 / len(merges)] * len(merges) if weights is None else list(weights)
    if len(alphas) != len(merges):
        raise SettingsError(f"{len(merges)} merged LoRAs, but {len(alphas)} weights: give one weight for each.")
    shapes: dict[str, tuple[int, ...]] = {}
    for merge in merges:
        for name, shape in merge.shapes.items():
            if shapes.setdefault(name, shape) != shape:
                raise SettingsError(
                    f"These merges were made for different models: layer {name} has shape {shapes[name]} in one and "
                    f"{shape} in another. Merge all concepts on the same checkpoint family."
                )
    parts = [part.scaled(a) for merge, a in zip(merges, alphas, strict=True) if a for part in merge.parts]
    _sum_text([(part.text, 1.0) for part in parts])  # refuses different text encoders here, and not at the next node
    return MergedLora(
        parts=tuple(sorted(parts, key=lambda part: part.side)),
        shapes=shapes,
        recipe={"combined": [{"weight": a, "merge": dict(m.recipe)} for m, a in zip(merges, alphas, strict=True)]},
    )


@dataclass(frozen=True)
class _FoldedLayer:
    """One layer of the result, with the squared Frobenius norms of what was left out and of the whole."""

    kept: LowRank
    lost: float
    total: float


def _fold(
    terms: Sequence[tuple[LowRank, Tensor, Tensor]], max_rank: int | None, dead_gate: float
) -> _FoldedLayer | None:
    """(LoRA, gate times strength, gate) of all that cover a layer; None where there are none."""
    if not terms:
        return None
    loras, strong, gates = zip(*terms, strict=True)
    gate = torch.cat(gates)
    alive = (gate.abs() >= dead_gate) & (gate != 0)
    return _keep(concat(loras).gated(torch.cat(strong)), alive, max_rank)


def _keep(whole: LowRank, alive: Tensor, max_rank: int | None) -> _FoldedLayer:
    """The components that are `alive`, recompressed to `max_rank`. What is left out is held, not subtracted again."""
    kept, rest = whole.select(alive), whole.select(~alive)
    if max_rank is not None:
        kept, tail = kept.truncated(max_rank)
        rest = concat([rest, tail])
    return _FoldedLayer(kept, rest.norm() ** 2, whole.norm() ** 2)


def _sum_text(terms: Sequence[tuple[Mapping[str, LowRank], float]]) -> dict[str, LowRank]:
    terms = [(text, a) for text, a in terms if a]
    names = dict.fromkeys(name for text, _ in terms for name in text)
    summed: dict[str, LowRank] = {}
    for name in names:
        parts = [text[name].scaled(a) for text, a in terms if name in text]
        shapes = {(part.up.shape[0], part.down.shape[1]) for part in parts}
        if len(shapes) > 1:
            raise SettingsError(
                f"These merges were made for different models: text encoder layer {name} has the shapes "
                f"{' and '.join(map(str, sorted(shapes)))}. Merge all concepts on the same checkpoint family."
            )
        summed[name] = concat(parts)
    return summed


def _sum_offsets(terms: Sequence[tuple[Mapping[tuple[str, str], Tensor], float]]) -> dict[tuple[str, str], Tensor]:
    total: dict[tuple[str, str], Tensor] = {}
    for offsets, a in terms:
        for key, value in offsets.items() if a else ():
            total[key] = a * value + total[key] if key in total else a * value
    return total
