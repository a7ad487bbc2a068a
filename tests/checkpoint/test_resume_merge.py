"""A training that stopped and went on is, bit for bit, the one that never stopped: through a file, at any step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from checkpoint_files import lie
from duolora_core import MergeConfig, Picture, StepReport, attach, open_gates, train
from duolora_core.baselines.zip_lora import Axis, ZipLoraConfig, attach_zip, zip_lora
from duolora_core.checkpoint.file import read_checkpoint, write_checkpoint
from duolora_core.checkpoint.state import Checkpoint
from duolora_core.errors import DuoLoraError, TrainingError
from duolora_core.merge.gated import GatedLora
from duolora_core.merge.gates import Gates
from duolora_core.merge.trainer import gates_at_start
from tiny import TinyDenoiser, hooks, picture
from training import BOTH_WEIGHTED, ROLES, small_pair
from worlds import World

CONTENT, STYLE, WIDE = [picture(1), picture(3)], [picture(2), picture(4)], [picture(2, (8, 16))]
KEY = "a" * 64
EXACT = replace(BOTH_WEIGHTED, steps=7, clip=0.5, weight_decay=0.01)

Reports = Generator[StepReport, None, None]
Start = Callable[[Checkpoint | None], AbstractContextManager[tuple[Reports, GatedLora]]]


@pytest.fixture(scope="module")
def built() -> World:
    return small_pair()


def merging(denoiser: TinyDenoiser, built: World, config: MergeConfig, style: list[Picture] = STYLE) -> Start:
    @contextmanager
    def start(resume: Checkpoint | None) -> Generator[tuple[Any, GatedLora], None, None]:
        with attach(denoiser.modules, built.pair, open_gates(built.pair)) as gated:
            yield train(denoiser, gated, CONTENT, style, ROLES, config, None, resume), gated

    return start


def zipping(denoiser: TinyDenoiser, built: World, config: ZipLoraConfig, axis: Axis) -> Start:
    @contextmanager
    def start(resume: Checkpoint | None) -> Generator[tuple[Any, GatedLora], None, None]:
        with attach_zip(denoiser.modules, built.pair, axis) as zipped:
            yield zip_lora(denoiser, zipped, CONTENT, STYLE, config, None, resume), zipped

    return start


@dataclass(frozen=True)
class Part:
    """What some steps reported, the gates after them, and the state after the last one."""

    losses: list[Mapping[str, float]]
    steps: list[int]
    gates: Tensor
    state: Checkpoint


def part(start: Start, resume: Checkpoint | None = None, steps: int | None = None) -> Part:
    taken: list[StepReport] = []
    states: list[Checkpoint] = []
    with start(resume) as (reports, gated):
        for report in islice(reports, steps):
            taken.append(report)
            states.append(report.checkpoint())
        reports.close()
    return Part([report.losses for report in taken], [report.step for report in taken], gated.gates.values, states[-1])


def through_a_file(state: Checkpoint, folder: Path, steps: int = 7) -> Checkpoint:
    pictures = {"content": [torch.zeros(4, 8, 8)], "style": [torch.zeros(4, 8, 8)]}
    kept = replace(state, losses={"total": [0.0] * state.step}, pictures=pictures)
    path = write_checkpoint(folder / "kept.safetensors", kept, KEY)
    return read_checkpoint(path, KEY, beginning(len(state.tensors["values"])), steps)


def beginning(gates: int) -> Checkpoint:
    """A training of so many gates before its first step."""
    return gates_at_start(Gates(torch.ones(gates), {}))


STARTS: dict[str, Callable[[UNet, World], Start]] = {
    "every batch new": lambda unet, built: merging(TinyDenoiser(unet), built, EXACT),
    "two sizes": lambda unet, built: merging(
        TinyDenoiser(unet), built, replace(EXACT, cycle_route="differentiable", seed=3), WIDE
    ),
    "pool": lambda unet, built: merging(TinyDenoiser(unet), built, replace(EXACT, pool=3, cycle_weight=0.0)),
    "stratified pool": lambda unet, built: merging(
        TinyDenoiser(unet), built, replace(EXACT, pool=2, timesteps="stratified", seed=5)
    ),
    "ZipLoRA": lambda unet, built: zipping(TinyDenoiser(unet), built, ZipLoraConfig(steps=7), "output"),
    "ZipLoRA, inputs": lambda unet, built: zipping(TinyDenoiser(unet), built, ZipLoraConfig(steps=7), "input"),
}


@pytest.mark.parametrize("kind", list(STARTS))
def test_going_on_is_never_having_stopped(unet: UNet, built: World, kind: str, tmp_path: Path) -> None:
    """At every step: the gates, the losses of all steps after it, and what the optimiser holds in the end."""
    whole = part(STARTS[kind](unet, built))
    for stop in range(1, 7):
        first = part(STARTS[kind](unet, built), steps=stop)
        rest = part(STARTS[kind](unet, built), through_a_file(first.state, tmp_path))
        assert rest.steps == list(range(stop + 1, 8))
        assert [*first.losses, *rest.losses] == whole.losses
        assert torch.equal(rest.gates, whole.gates)
        assert rest.state.tensors.keys() == whole.state.tensors.keys()
        for name, tensor in whole.state.tensors.items():
            assert torch.equal(rest.state.tensors[name], tensor), name
        assert rest.state.numbers == whole.state.numbers
    assert hooks(unet) == 0


def test_stopping_twice_is_no_different(unet: UNet, built: World, tmp_path: Path) -> None:
    start = STARTS["stratified pool"](unet, built)
    state = part(start, steps=2).state
    state = part(start, through_a_file(state, tmp_path), steps=3).state
    assert torch.equal(part(start, through_a_file(state, tmp_path)).gates, part(start).gates)


def test_only_the_teachers_of_the_steps_to_come_are_asked(unet: UNet, built: World) -> None:
    denoiser = TinyDenoiser(unet)
    start = merging(denoiser, built, replace(EXACT, cycle_weight=0.0))
    state = part(start, steps=5).state
    denoiser.seen.clear()
    part(start, state)
    assert len(denoiser.seen) == 2 * 4  # two teachers and two students in each of the two steps left


def test_the_best_gates_so_far_are_gone_on_with(unet: UNet, built: World) -> None:
    """Numbers that break after going on set the gates back to what was best before the stop."""
    poison = [False]
    denoiser = TinyDenoiser(unet, spoil=lambda x0: x0 * math.nan if poison[0] else x0)
    start = merging(denoiser, built, replace(EXACT, learning_rate=0.5))
    state = part(start, steps=5).state
    assert not torch.equal(state.tensors["best"], state.tensors["values"])
    poison[0] = True
    with start(state) as (reports, gated):
        with pytest.raises(TrainingError, match="step 6"):
            next(reports)
        assert torch.equal(gated.gates.values, state.tensors["best"])


def test_a_state_of_other_gates_is_refused(unet: UNet, built: World) -> None:
    start = STARTS["every batch new"](unet, built)
    state = part(start, steps=1).state
    values = state.tensors["values"]
    with start(replace(state, tensors={**state.tensors, "values": values[1:]})) as (reports, gated):
        with pytest.raises(TrainingError, match=rf"\({len(values) - 1},\).* but \({len(values)},\)"):
            next(reports)
        assert not gated.gates.values.requires_grad


@pytest.fixture
def kept() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    values, mean, best = (torch.randn(30, generator=generator) for _ in range(3))
    moments = {"values.step": torch.tensor(3.0), "values.exp_avg": mean, "values.exp_avg_sq": mean.square()}
    losses = {"total": [0.3, 0.2, 0.1 + 0.2], "reconstruction_content": [1.0, 2.0, 1e-30]}
    latents = [torch.randn(4, 8, width, generator=generator) for width in (8, 8, 16)]
    numbers, pictures = {"smoothed": 0.1 + 0.2, "lowest": 1 / 3}, {"content": latents[:2], "style": latents[2:]}
    return Checkpoint(3, {"values": values, "best": best, **moments}, 64, numbers, losses, pictures)


def test_everything_comes_back_as_it_was(kept: Checkpoint, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    back = read_checkpoint(path, KEY, beginning(30), steps=4)
    assert (back.losses, back.step, back.numbers, back.scale_divisor) == (kept.losses, 3, kept.numbers, 64)
    assert back.tensors.keys() == kept.tensors.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in kept.tensors.items())
    for whose, latents in kept.pictures.items():
        assert len(back.pictures[whose]) == len(latents) and all(map(torch.equal, back.pictures[whose], latents))
    write_checkpoint(path, replace(kept, step=2, losses={"total": [0.3, 0.2]}), KEY)
    assert read_checkpoint(path, KEY, beginning(30), 4).step == 2


@pytest.mark.parametrize(("key", "gates", "steps"), [("b" * 64, 30, 4), (KEY, 31, 4), (KEY, 30, 2)])
def test_another_training_does_not_go_on_from_it(
    kept: Checkpoint, key: str, gates: int, steps: int, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    with pytest.raises(DuoLoraError, match=r"kept\.safetensors cannot be resumed from"):
        read_checkpoint(path, key, beginning(gates), steps)


def test_no_byte_of_it_can_change_unnoticed(kept: Checkpoint, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    data = path.read_bytes()
    for place in (*range(0, len(data), 97), *range(len(data) - 16, len(data))):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(DuoLoraError, match=r"kept\.safetensors"):
                read_checkpoint(path, KEY, beginning(30), 4)


LIES: dict[str, tuple[str, dict[str, Tensor], dict[str, Any]]] = {
    "a value that is not finite": ("no training has", {"state/values": torch.full((30,), math.nan)}, {}),
    "a loss that is not finite": ("not finite", {"losses": torch.full((2, 3), math.nan, dtype=torch.float64)}, {}),
    "a number that is not finite": ("not finite", {}, {"numbers": {"smoothed": math.inf, "lowest": 1.0}}),
    "a number that is too large": ("too large", {}, {"numbers": {"smoothed": 10**400, "lowest": 1.0}}),
    "another number": ("its numbers", {}, {"numbers": {"smoothed": 1.0}}),
    "another loss scale": ("its numbers", {}, {"scale_divisor": 2}),
    "half precision": ("float16", {"state/best": torch.ones(30, dtype=torch.float16)}, {}),
    "a negative square": ("no training has", {"state/values.exp_avg_sq": -torch.ones(30)}, {}),
    "too few losses": ("its curves", {"losses": torch.ones(2, 2, dtype=torch.float64)}, {}),
    "one more tensor": ("not whole", {"more": torch.ones(1)}, {}),
    "one more of the state": ("nothing is needed", {"state/more": torch.ones(1)}, {}),
    "no latent": ("not latents", {"content/0": torch.ones(3)}, {}),
    "a later step": ("its curves", {}, {"step": 4}),
    "a step that is no number": ("invalid literal", {}, {"step": "x"}),
    "no picture": ("not whole", {}, {"pictures": {"content": 0, "style": 1}}),
    "a list of pictures": ("no attribute", {}, {"pictures": [2, 1]}),
    "another version": ("of another version", {}, {"format": 3}),
    "a term twice": ("its curves", {}, {"terms": ["total", "total"]}),
}


@pytest.mark.parametrize("told", list(LIES))
def test_a_file_that_lies_with_a_right_checksum_is_refused(kept: Checkpoint, told: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    reason, tensors, says = LIES[told]
    lie(path, tensors, says)
    with pytest.raises(DuoLoraError, match=rf"kept\.safetensors cannot be resumed from .*{reason}"):
        read_checkpoint(path, KEY, beginning(30), steps=5)
