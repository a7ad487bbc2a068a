"""UnZipLoRA: both LoRAs are one model in training and two ordinary ones after; each part can be left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import StepReport
from duolora_core.checkpoint.state import Checkpoint
from duolora_core.errors import SettingsError
from duolora_core.merge.roles import layer_roles
from duolora_core.train_lora import (
    LoraConfig,
    TrainConfig,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    unzip,
    unzip_loras,
)
from duolora_core.train_lora.trainable_lora import Side, TrainableLora
from factors import add, with_changes
from lora_trainings import deltas
from tiny import TinyDenoiser, condition, inputs, layout, picture, run
from worlds import relative

FORM = LoraConfig(rank=2)
CONFIG = UnzipConfig(
    learning=TrainConfig(steps=6, learning_rate=0.01, batch=2, micro_batch=4, seed=3), column_rate=0.05, probes=2
)
PROMPTS = UnzipPrompts(condition(1), condition(2), condition(3))
LATENT = picture(1).latent


def unzipped(
    denoiser: TinyDenoiser,
    config: UnzipConfig = CONFIG,
    prompts: UnzipPrompts = PROMPTS,
    resume: Checkpoint | None = None,
    seed: int = 0,
) -> tuple[dict[Side, TrainableLora], list[StepReport], list[Checkpoint]]:
    loras = unzip_loras(denoiser.layout, FORM, config, seed)
    reports: list[StepReport] = []
    checkpoints: list[Checkpoint] = []
    with attach_loras(denoiser.modules, loras) as attached:
        for report in unzip(denoiser, attached, [LATENT], prompts, config, resume=resume):
            reports.append(report)
            checkpoints.append(report.checkpoint())
    return loras, reports, checkpoints


def numbers(loras: dict[Side, TrainableLora]) -> Tensor:
    return torch.cat([tensor.flatten() for lora in loras.values() for tensor in lora.tensors().values()])


def test_columns_open_in_three_growths_of_a_tenth_and_are_whole_in_their_own_blocks(unet: UNet) -> None:
    roles = layer_roles(layout(), CONFIG.blocks)
    _, _, checkpoints = unzipped(TinyDenoiser(unet))
    for step, checkpoint in enumerate(checkpoints):
        growths = 1 + step // 2  # before steps 0, 2 and 4 of 6
        for name, mask in checkpoint.tensors.items():
            side, _, rest = name.partition(".")
            layer, _, kind = rest.rpartition(".")
            if kind == "mask":
                closed = roles[layer] != side
                expected = growths * max(1, round(0.1 * len(mask))) if closed else len(mask)
                assert int(mask.sum()) == expected and set(mask.tolist()) <= {0.0, 1.0}
    first = checkpoints[0].tensors  # later, content may choose what style has
    sparse = [n for n, role in roles.items() if role == "neutral" and f"content.{n}.mask" in first]
    assert len(sparse) > 20
    assert all(float((first[f"content.{n}.mask"] * first[f"style.{n}.mask"]).sum()) == 0 for n in sparse)


def test_what_is_closed_stays_unchanged_and_scales_stay_in_range(unet: UNet) -> None:
    loras, _, _ = unzipped(TinyDenoiser(unet))
    for lora in loras.values():
        folded = lora.fold()
        for name, mask in lora.masks.items():
            assert not bool(folded.layers[name].up[mask == 0].any())
            assert bool(folded.layers[name].up[mask == 1].any())
            assert float(lora.columns[name].min()) >= 0 and float(lora.columns[name].max()) <= 1


def test_the_joint_model_starts_as_the_base_model(unet: UNet) -> None:
    denoiser = TinyDenoiser(unet)
    still = replace(CONFIG, learning=replace(CONFIG.learning, steps=1, learning_rate=0.0), orthogonality=0.0)
    _, [report], _ = unzipped(denoiser, still)
    bare = replace(still, separate_prompts=False, separate_columns=False)
    _, [base], _ = unzipped(denoiser, bare)
    assert report.losses["pictures"] == base.losses["pictures"]


def test_with_equal_prompts_the_two_folded_loras_are_the_joint_model(unet: UNet) -> None:
    """The last step's loss, measured again on the plain UNet with both folded changes in its weights."""
    one = condition(5)
    denoiser = TinyDenoiser(unet)
    loras, _, checkpoints = unzipped(denoiser, prompts=UnzipPrompts(one, one, one))
    changes = add(*(deltas(lora.fold()) for lora in loras.values()))
    with attach_loras(denoiser.modules, loras) as attached, attached.branches(["sum"]), torch.no_grad():
        x, t, _ = inputs(1)
        joint = run(unet, x, t, [one])
    with torch.no_grad():
        assert relative(joint, run(with_changes(unet, changes), x, t, [one])) < 1e-6
    still = replace(CONFIG, learning=replace(CONFIG.learning, steps=7, learning_rate=0.0), column_rate=0.0)
    _, reports, _ = unzipped(denoiser, still, UnzipPrompts(one, one, one), Checkpoint(6, checkpoints[-1].tensors))
    off = replace(still, separate_prompts=False)
    _, again, _ = unzipped(denoiser, off, UnzipPrompts(one, one, one), Checkpoint(6, checkpoints[-1].tensors))
    assert reports[0].losses["pictures"] == pytest.approx(again[0].losses["pictures"], rel=1e-5)


def test_each_lora_learns_from_its_own_prompt_alone(unet: UNet) -> None:
    """Only the content LoRA's keys and values change their gradients' course when the content prompt does."""
    one_step = replace(
        CONFIG, learning=replace(CONFIG.learning, steps=1), separate_columns=False, separate_blocks=False
    )
    first, _, _ = unzipped(TinyDenoiser(unet), one_step)
    other, _, _ = unzipped(TinyDenoiser(unet), one_step, replace(PROMPTS, content=condition(9)))
    moved: dict[str, set[str]] = {
        side: {n for n in lora.up if not torch.equal(lora.up[n], other[side].up[n])} for side, lora in first.items()
    }
    assert not moved["style"]
    assert moved["content"] and all(n.endswith(("attn2.to_k", "attn2.to_v")) for n in moved["content"])


def test_the_total_adds_the_weighted_overlap_and_pushes_shared_scales_down(unet: UNet) -> None:
    heavy = replace(CONFIG, orthogonality=50.0, blocks="middle_block=content", column_share=0.6, column_steps=(0.0,))
    loras, reports, _ = unzipped(TinyDenoiser(unet), heavy)
    for report in reports:
        expected = report.losses["pictures"] + 50.0 * report.losses["overlap"]
        assert report.losses["total"] == pytest.approx(expected, rel=1e-5)
    assert reports[-1].losses["overlap"] < 0.9 * reports[0].losses["overlap"]
    content, style = loras["content"], loras["style"]
    shared = torch.cat([content.columns[n][content.masks[n] * mask > 0] for n, mask in style.masks.items()])
    alone = torch.cat([content.columns[n][content.masks[n] * (1 - mask) > 0] for n, mask in style.masks.items()])
    assert float(shared.mean()) < float(alone.mean())


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_going_on_across_a_growth_is_bit_for_bit_never_having_stopped(unet: UNet, stop: int) -> None:
    whole, _, checkpoints = unzipped(TinyDenoiser(unet))
    again, _, _ = unzipped(TinyDenoiser(unet), resume=checkpoints[stop - 1], seed=8)
    assert torch.equal(numbers(again), numbers(whole))


@pytest.mark.parametrize(
    "parts", [{"separate_columns": False}, {"separate_blocks": False}, {"separate_prompts": False}], ids=str
)
def test_each_part_can_be_left_out(unet: UNet, parts: dict[str, Any]) -> None:
    loras, reports, _ = unzipped(TinyDenoiser(unet), replace(CONFIG, **parts))
    assert ("overlap" in reports[0].losses) == parts.get("separate_columns", True)
    content = loras["content"]
    assert bool(content.masks) == parts.get("separate_columns", True)
    if content.masks:
        whole = [name for name, mask in content.masks.items() if bool((mask == 1).all())]
        assert bool(whole) == parts.get("separate_blocks", True)


def test_prompts_of_other_lengths_are_refused_with_their_lengths(unet: UNet) -> None:
    with pytest.raises(SettingsError, match="style prompt has 4 tokens, the joint prompt 3"):
        unzipped(TinyDenoiser(unet), prompts=replace(PROMPTS, style=condition(3, tokens=4)))


def test_unzipping_nothing_is_refused(unet: UNet) -> None:
    denoiser = TinyDenoiser(unet)
    with (
        attach_loras(denoiser.modules, unzip_loras(layout(), FORM, CONFIG)) as attached,
        pytest.raises(SettingsError, match="picture"),
    ):
        next(unzip(denoiser, attached, [], PROMPTS, CONFIG))


@pytest.mark.parametrize(
    "setting", [{"column_share": 0.0}, {"probes": 0}, {"column_steps": (0.5,)}, {"column_rate": 2.0}]
)
def test_settings_outside_their_meaning_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(setting))):
        replace(CONFIG, **setting)


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no block 'up_blocks\.7'"):
        unzip_loras(layout(), FORM, replace(CONFIG, blocks="up_blocks.7=content"))
