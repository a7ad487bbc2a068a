"""Trials on the committed world: what is counted, what is painted with what, and that a merge helps at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.shapes_world.ablation import DUOLORA, OTHERS
from benchmarks.shapes_world.calibration import base_accuracies
from benchmarks.shapes_world.cases import case_of
from benchmarks.shapes_world.methods import METHODS, OURS, ZIPLORA, DuoLora, Stack, TrainingFree, Tuned, ZipLora, k_lora
from benchmarks.shapes_world.render import as_image
from benchmarks.shapes_world.trials import SEED, Trial, paint_with, run
from benchmarks.shapes_world.workbench import Workbench, open_workbench
from duolora_core import MergeConfig
from duolora_core.baselines.training_free import stack
from duolora_core.baselines.zip_lora import ZipLoraConfig
from duolora_core.lora.folded import FoldedLora

CASE = case_of("sks1+zwx1")


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return open_workbench()


def test_the_base_model_knows_its_words(bench: Workbench) -> None:
    content, style = base_accuracies(bench, pictures=42)
    assert content > 0.95
    assert style > 0.95


def test_trained_numbers_are_counted(bench: Workbench) -> None:
    """A gate per rank component of both LoRAs, a ZipLoRA mask per channel of each covered layer and LoRA."""
    pair = bench.pair(CASE)
    gates = DuoLora(MergeConfig(steps=1))(bench, CASE).parameters
    assert gates == sum(sum(pair.ranks(name)) for name in pair.names)
    for axis, dimension in (("output", 0), ("input", 1)):
        masks = ZipLora(axis, ZipLoraConfig(steps=1))(bench, CASE).parameters  # type: ignore[arg-type]
        assert masks == 2 * sum(pair.layout.layers[name].shape[dimension] for name in pair.names)
    assert Stack()(bench, CASE).parameters == 0


def test_strengths_reach_the_fold(bench: Workbench) -> None:
    """Content strength 0 leaves the style LoRA alone, in a trained merge as in a sum."""
    for method in (Stack(0.5, 2.0), DuoLora(MergeConfig(steps=1))):
        alone = method(bench, CASE).fold(0.0, 1.0)
        assert isinstance(alone, FoldedLora)
        assert {lora.rank for lora in alone.layers.values()} <= {8}
    half = Tuned(Stack(), 0.5, 2.0)(bench, CASE).fold(1.0, 1.0)
    assert isinstance(half, FoldedLora)
    expected = stack(bench.pair(CASE), content_strength=0.5, style_strength=2.0)
    for name, lora in half.layers.items():
        assert torch.allclose(lora.delta(), expected.layers[name].delta(), atol=1e-5)


def test_a_lora_that_changes_with_the_progress_is_applied_at_every_step(bench: Workbench) -> None:
    """A constant schedule paints what the LoRA itself paints; one that changes paints something else."""
    pair, prompts = bench.pair(CASE), [CASE.prompt] * 2
    whole = stack(pair)
    fixed = paint_with(bench.model, whole, prompts, seed=1)
    assert torch.allclose(fixed, paint_with(bench.model, lambda _progress: whole, prompts, seed=1), atol=1e-4)
    moving = paint_with(bench.model, lambda p: stack(pair, content_strength=1 - p, style_strength=p), prompts, seed=1)
    assert float((moving - fixed).abs().mean()) > 0.01


def test_an_outcome_repeats(bench: Workbench) -> None:
    """Equal trials give equal verdicts and pictures; every file is an ordinary one of some size, K-LoRA's is none."""
    first, second = (run(Trial("x", Stack(), CASE, 4)) for _ in range(2))
    assert first.examples == second.examples
    assert np.array_equal(first.seen[0], second.seen[0])
    assert first.bytes > 10_000
    assert run(Trial("k", TrainingFree(k_lora), CASE, 2)).bytes == 0
    noise = SEED + CASE.content * 100 + CASE.style
    painted = paint_with(bench.model, stack(bench.pair(CASE)), [CASE.prompt] * 4, noise)
    assert [as_image(picture) for picture in painted] == first.examples


def test_studies_and_tables_name_what_exists() -> None:
    assert {OURS, *ZIPLORA} <= METHODS.keys()
    assert not DUOLORA.keys() & OTHERS.keys()
    for variants in DUOLORA.values():
        for changes in variants:
            MergeConfig(**changes)


def test_every_candidate_for_the_fast_preset_does_a_third_of_the_work() -> None:
    """Six teachers for each new draw, and for each step two students with gradient, which count twice."""

    def work(config: MergeConfig) -> int:
        return 6 * min(config.pool or config.steps, config.steps) + 4 * config.steps

    exact, *fast = (MergeConfig(**changes) for changes in DUOLORA["fast"])
    assert exact == MergeConfig()
    assert fast and all(3 * work(config) <= work(exact) for config in fast)
