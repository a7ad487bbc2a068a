"""Every method of the comparison: a workbench and a case in, something that folds into a LoRA out.

Settings that a method's authors leave open are chosen on the development cases, as ours are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from duolora_core import MergeConfig, make_merged
from duolora_core.baselines.core_space import dare, ties
from duolora_core.baselines.training_free import average, block_split, null_space, stack
from duolora_core.baselines.zip_lora import Axis, ZipLoraConfig
from duolora_core.lora.folded import FoldedLora
from duolora_core.merge.config import PRESETS
from duolora_core.merge.stack import Basis, LoraPair

from .cases import Case
from .k_lora import top_k_choice
from .workbench import PictureSource, Workbench

Lora = FoldedLora | Callable[[float], FoldedLora]
"""An ordinary LoRA, or one for every progress of the denoising from 0 (noise) to 1 (picture)."""


@dataclass(frozen=True)
class Made:
    """What a method made of a case.

    Attributes:
        fold: content strength and style strength to the LoRA
        parameters: how many numbers were trained
    """

    fold: Callable[[float, float], Lora]
    parameters: int = 0


Method = Callable[[Workbench, Case], Made]


@dataclass(frozen=True)
class DuoLora:
    """DuoLoRA and its parts, by configuration."""

    config: MergeConfig = field(default_factory=MergeConfig)
    source: PictureSource = "given"

    def __call__(self, bench: Workbench, case: Case) -> Made:
        pair, gates = bench.duolora(case, self.config, self.source)
        return Made(make_merged(pair, gates).fold, gates.values.numel())


@dataclass(frozen=True)
class ZipLora:
    """ZipLoRA with masks over one dimension of the weights."""

    axis: Axis
    config: ZipLoraConfig = field(default_factory=ZipLoraConfig)

    def __call__(self, bench: Workbench, case: Case) -> Made:
        zipped = bench.zip_lora(case, self.config, self.axis)
        return Made(lambda a, b: zipped.fold(content_strength=a, style_strength=b), zipped.gates.values.numel())


@dataclass(frozen=True)
class Stack:
    """The weighted sum."""

    content: float = 1.0
    style: float = 1.0

    def __call__(self, bench: Workbench, case: Case) -> Made:
        pair = bench.pair(case)
        return Made(lambda a, b: stack(pair, content_strength=a * self.content, style_strength=b * self.style))


@dataclass(frozen=True)
class TrainingFree:
    """A rule on a pair, without strengths of its own."""

    rule: Callable[[LoraPair], Lora]
    basis: Basis = "svd"

    def __call__(self, bench: Workbench, case: Case) -> Made:
        lora = self.rule(bench.pair(case, self.basis))
        return Made(lambda _content, _style: lora)


@dataclass(frozen=True)
class Tuned:
    """A method whose strengths, free after the merge, are those that did best on the development cases."""

    method: Method
    content: float
    style: float

    def __call__(self, bench: Workbench, case: Case) -> Made:
        made = self.method(bench, case)
        return Made(lambda a, b: made.fold(a * self.content, b * self.style), made.parameters)


def k_lora(pair: LoraPair, alpha: float = 1.5, beta: float = 0.5) -> Lora:
    """K-LoRA's choice at every progress of the denoising."""
    return lambda progress: top_k_choice(pair, progress=progress, alpha=alpha, beta=beta)


METHODS: Mapping[str, Method] = {
    "stack 1 + 1": Stack(),
    "stack, tuned": Tuned(Stack(), 0.9, 0.8),
    "average": TrainingFree(average),
    "B-LoRA's blocks": TrainingFree(block_split),
    "NP-LoRA": TrainingFree(null_space),
    "K-LoRA": TrainingFree(k_lora),
    "TIES": TrainingFree(ties, "factors"),
    "DARE": TrainingFree(dare, "factors"),
    "ZipLoRA, output": ZipLora("output"),
    "ZipLoRA, input": ZipLora("input"),
    "ZipLoRA, tuned": Tuned(ZipLora("output"), 0.8, 0.8),
    "ZipRank, raw factors": DuoLora(MergeConfig(basis="factors")),
    "DuoLoRA": DuoLora(),
    "DuoLoRA, tuned": Tuned(DuoLora(), 0.9, 0.9),
    "+ initialisation": DuoLora(MergeConfig(initialisation="random")),
    "+ layer prior": DuoLora(MergeConfig(layer_prior_weight=1.0)),
    "+ Constyle": DuoLora(MergeConfig(cycle_weight=0.01)),
    "the paper's settings": DuoLora(PRESETS["paper"]),
    "fast": DuoLora(PRESETS["fast"]),
}
"""By the names of the tables. DuoLoRA's default is ZipRank in the SVD basis; each + adds one part to that."""

OURS = "DuoLoRA"
ZIPLORA = ("ZipLoRA, output", "ZipLoRA, input")
