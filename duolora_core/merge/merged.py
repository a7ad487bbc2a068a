"""The result of a merge: both LoRAs and their masks, still adjustable, and the ordinary LoRA that they fold into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingsError
from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank, concat
from ..lora.parallel_layers import map_layers
from .gates import DEAD_GATE, Gates
from .stack import LoraPair


@dataclass(frozen=True)
class MergedLayer:
    """One layer: ΔW = U_c diag(m_c) D_c + U_s diag(m_s) D_s. A side that does not cover the layer is None."""

    content: LowRank | None
    style: LowRank | None
    content_gate: Tensor | None  # (content rank,)
    style_gate: Tensor | None  # (style rank,)


@dataclass(frozen=True)
class MergedLora:
    """A merge with its roles kept apart, so that content and style strength can be set after training.

    Attributes:
        layers: {canonical UNet layer: MergedLayer}
        content_text, style_text: {text-encoder layer: LowRank}, the text encoders' parts, merged by strength alone
        content_offsets, style_offsets: 1-D changes, merged by strength alone
        shapes: {canonical UNet layer: weight shape}
        recipe: what the merge was made from, as plain JSON data
        content_text_offsets, style_text_offsets: the text encoders' 1-D changes, merged by strength alone
    """

    layers: Mapping[str, MergedLayer]
    content_text: Mapping[str, LowRank]
    style_text: Mapping[str, LowRank]
    content_offsets: Mapping[tuple[str, str], Tensor]
    style_offsets: Mapping[tuple[str, str], Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content_text_offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    style_text_offsets: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])

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
        strengths = content_strength, style_strength
        text = _sum_text([(self.content_text, content_strength), (self.style_text, style_strength)])
        folded = map_layers(lambda _, layer: _fold(layer, strengths, max_rank, dead_gate), self.layers)
        folded_text = map_layers(
            lambda _, whole: _keep(whole, torch.ones(whole.rank, dtype=torch.bool), max_rank), text
        )
        parts = [part for part in (*folded.values(), *folded_text.values()) if part is not None]
        lost, total = sum(part.lost for part in parts), sum(part.total for part in parts)
        return FoldedLora(
            layers={name: part.kept for name, part in folded.items() if part is not None and part.kept.rank},
            text={name: part.kept for name, part in folded_text.items()},
            offsets=_sum_offsets([(self.content_offsets, content_strength), (self.style_offsets, style_strength)]),
            shapes=self.shapes,
            error=(lost / total) ** 0.5 if total > 0 else 0.0,
            text_offsets=_sum_offsets(
                [(self.content_text_offsets, content_strength), (self.style_text_offsets, style_strength)]
            ),
        )


def make_merged(pair: LoraPair, gates: Gates, recipe: Mapping[str, Any] | None = None) -> MergedLora:
    """A snapshot of the gates on their pair; later training does not change it."""
    frozen = gates.copy()
    frozen.values = frozen.values.cpu()
    layers = {
        name: MergedLayer(
            content=pair.content.get(name),
            style=pair.style.get(name),
            content_gate=frozen.content(name) if name in pair.content else None,
            style_gate=frozen.style(name) if name in pair.style else None,
        )
        for name in pair.names
    }
    offsets = {name for side in (pair.content_lora, pair.style_lora) for name, _ in side.offsets}
    return MergedLora(
        layers=layers,
        content_text=pair.content_lora.text,
        style_text=pair.style_lora.text,
        content_offsets=pair.content_lora.offsets,
        style_offsets=pair.style_lora.offsets,
        shapes={name: pair.layout.layers[name].shape for name in (*pair.names, *sorted(offsets - set(pair.names)))},
        recipe=dict(recipe or {}),
        content_text_offsets=pair.content_lora.text_offsets,
        style_text_offsets=pair.style_lora.text_offsets,
    )


def joined(content: FoldedLora | None, style: FoldedLora | None, recipe: Mapping[str, Any] | None = None) -> MergedLora:
    """Ordinary LoRAs as a merge with all masks open: their sum, with a strength for each. None: no such side."""
    empty = FoldedLora({}, {}, {}, {}, 0.0)
    c, s = content or empty, style or empty
    return MergedLora(
        layers={name: _open(c.layers.get(name), s.layers.get(name)) for name in dict.fromkeys([*c.layers, *s.layers])},
        content_text=c.text,
        style_text=s.text,
        content_offsets=c.offsets,
        style_offsets=s.offsets,
        shapes={**c.shapes, **s.shapes},
        recipe=dict(recipe or {}),
        content_text_offsets=c.text_offsets,
        style_text_offsets=s.text_offsets,
    )


def _open(content: LowRank | None, style: LowRank | None) -> MergedLayer:
    return MergedLayer(content, style, *(lora and torch.ones(lora.rank) for lora in (content, style)))


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
    terms = [(merge, a) for merge, a in zip(merges, alphas, strict=True) if a]  # weight 0 leaves no trace in the file
    names = list(dict.fromkeys(name for merge, _ in terms for name in merge.layers))
    return MergedLora(
        layers={name: _sum_layers([(m.layers[name], a) for m, a in terms if name in m.layers]) for name in names},
        content_text=_sum_text([(m.content_text, a) for m, a in terms]),
        style_text=_sum_text([(m.style_text, a) for m, a in terms]),
        content_offsets=_sum_offsets([(m.content_offsets, a) for m, a in terms]),
        style_offsets=_sum_offsets([(m.style_offsets, a) for m, a in terms]),
        shapes=shapes,
        recipe={"combined": [{"weight": a, "merge": dict(m.recipe)} for m, a in zip(merges, alphas, strict=True)]},
        content_text_offsets=_sum_offsets([(m.content_text_offsets, a) for m, a in terms]),
        style_text_offsets=_sum_offsets([(m.style_text_offsets, a) for m, a in terms]),
    )


@dataclass(frozen=True)
class _FoldedLayer:
    """One layer of the result, with the squared Frobenius norms of what was left out and of the whole."""

    kept: LowRank
    lost: float
    total: float


def _fold(
    layer: MergedLayer, strengths: tuple[float, float], max_rank: int | None, dead_gate: float
) -> _FoldedLayer | None:
    """None where neither side of a strength other than 0 covers the layer."""
    sides = zip((layer.content, layer.style), (layer.content_gate, layer.style_gate), strengths, strict=True)
    present = [(lora, gate, s) for lora, gate, s in sides if lora is not None and gate is not None and s]
    if not present:
        return None
    gate = torch.cat([gate for _, gate, _ in present])
    alive = (gate.abs() >= dead_gate) & (gate != 0)
    whole = concat([lora for lora, _, _ in present]).gated(torch.cat([gate * s for _, gate, s in present]))
    return _keep(whole, alive, max_rank)


def _keep(whole: LowRank, alive: Tensor, max_rank: int | None) -> _FoldedLayer:
    """The components that are `alive`, recompressed to `max_rank`. What is left out is held, not subtracted again."""
    kept, rest = whole.select(alive), whole.select(~alive)
    if max_rank is not None:
        kept, tail = kept.truncated(max_rank)
        rest = concat([rest, tail])
    return _FoldedLayer(kept, rest.norm() ** 2, whole.norm() ** 2)


def _sum_layers(terms: Sequence[tuple[MergedLayer, float]]) -> MergedLayer:
    content = [(t.content.scaled(a), t.content_gate) for t, a in terms if t.content and t.content_gate is not None]
    style = [(t.style.scaled(a), t.style_gate) for t, a in terms if t.style and t.style_gate is not None]
    return MergedLayer(
        content=concat([lora for lora, _ in content]) if content else None,
        style=concat([lora for lora, _ in style]) if style else None,
        content_gate=torch.cat([gate for _, gate in content]) if content else None,
        style_gate=torch.cat([gate for _, gate in style]) if style else None,
    )


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
