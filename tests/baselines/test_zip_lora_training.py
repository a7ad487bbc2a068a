"""ZipLoRA's training: gradients against finite differences, its two terms, its teachers, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.ldm_unet import UNet
from duolora_core import Gates, StepReport
from duolora_core.baselines.zip_lora import Axis, ZipLoraConfig, attach_zip, mask_similarity, open_masks, zip_lora
from duolora_core.errors import SettingsError, TrainingError
from duolora_core.model.denoiser import Prediction
from masks import LAYERS, random_masks, small_pair
from tiny import TinyDenoiser, hooks, layout, picture
from worlds import World, world

AXES: tuple[Axis, ...] = ("output", "input")


@pytest.fixture(scope="module")
def small() -> World:
    return small_pair()


def trained(
    denoiser: TinyDenoiser,
    built: World,
    config: ZipLoraConfig,
    axis: Axis = "output",
    start: Callable[[Gates], Tensor] = lambda masks: masks.values,
) -> tuple[list[StepReport], Gates]:
    with attach_zip(denoiser.modules, built.pair, axis) as zipped:
        zipped.gates.values = start(zipped.gates)
        reports = list(zip_lora(denoiser, zipped, [picture(1)], [picture(2)], config))
    return reports, zipped.gates


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_gradients_are_finite_differences(unet: UNet, small: World, axis: Axis, prediction: Prediction) -> None:
    """Along random directions, at masks where the similarity is smooth. Losses are float32, hence the wide step."""
    config = ZipLoraConfig(steps=1, learning_rate=0.0, similarity_weight=0.3, micro_batch=2)
    seen: list[Tensor] = []

    def record(optimiser: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        seen.append(optimiser.param_groups[0]["params"][0].grad.clone())

    def start(masks: Gates) -> Tensor:
        return random_masks(masks).abs() + 0.2

    def total(shift: Tensor) -> float:
        denoiser = TinyDenoiser(unet, prediction)
        return trained(denoiser, small, config, axis, lambda masks: start(masks) + shift)[0][0].losses["total"]

    handle = register_optimizer_step_pre_hook(record)
    try:
        trained(TinyDenoiser(unet, prediction), small, config, axis, start)
    finally:
        handle.remove()
    gradient, generator, h = seen[0].double(), torch.Generator().manual_seed(4), 1e-2
    for _ in range(3):
        direction = gradient.sign() * torch.rand(gradient.shape, generator=generator)
        slope = (total(h * direction) - total(-h * direction)) / (2 * h)
        assert slope == pytest.approx(float(gradient @ direction), rel=5e-3)


def test_similarity_is_the_mean_over_shared_layers(small: World) -> None:
    masks = open_masks(small.pair)
    assert float(mask_similarity(masks)) == 1.0
    masks.values = random_masks(masks)
    shared = [name for name in small.pair.names if name in small.pair.content and name in small.pair.style]
    expected = [
        float((masks.content(name) * masks.style(name)).abs().sum()) / layout().layers[name].shape[0] for name in shared
    ]
    assert float(mask_similarity(masks)) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    apart = open_masks(world(LAYERS[:1], LAYERS[1:2]).pair)
    assert float(mask_similarity(apart)) == 0.0


@pytest.mark.parametrize("axis", AXES)
def test_training_lowers_the_loss_and_changes_only_the_masks(unet: UNet, small: World, axis: Axis) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}

    def measured(values: Tensor) -> float:
        """The reconstruction at fixed draws; a learning rate of 0 only measures."""
        draws = [ZipLoraConfig(steps=1, learning_rate=0.0, similarity_weight=0.0, seed=100 + i) for i in range(4)]
        return sum(
            trained(TinyDenoiser(unet), small, draw, axis, lambda _: values)[0][0].losses["total"] for draw in draws
        )

    masks = trained(TinyDenoiser(unet), small, ZipLoraConfig(steps=30, learning_rate=0.02, seed=1), axis)[1]
    assert measured(masks.values) < 0.8 * measured(torch.ones_like(masks.values))
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert hooks(unet) == 0 and not masks.values.requires_grad


def test_the_similarity_term_drives_the_masks_apart(unet: UNet, small: World) -> None:
    config = ZipLoraConfig(steps=10, learning_rate=0.05)
    loose, tight = (
        trained(TinyDenoiser(unet), small, replace(config, similarity_weight=weight))[0] for weight in (0.0, 10.0)
    )
    assert tight[-1].losses["similarity"] < loose[-1].losses["similarity"] < 1.5
    assert tight[0].losses["similarity"] == 1.0


def test_a_seed_decides_everything_and_micro_batch_nothing(unet: UNet, small: World) -> None:
    config = ZipLoraConfig(steps=2)
    runs = [
        trained(TinyDenoiser(unet), small, replace(config, **changes))[1].values
        for changes in ({}, {}, {"seed": 1}, {"micro_batch": 1})
    ]
    assert torch.equal(runs[0], runs[1])
    assert float((runs[0] - runs[2]).abs().max()) > 1e-3
    assert torch.allclose(runs[0], runs[3], atol=1e-4)


def test_reports_name_their_terms_and_the_total_is_their_sum(unet: UNet, small: World) -> None:
    reports, masks = trained(TinyDenoiser(unet), small, ZipLoraConfig(steps=2, similarity_weight=0.5))
    assert [(report.step, report.steps) for report in reports] == [(1, 2), (2, 2)]
    for report in reports:
        terms = dict(report.losses)
        assert terms.keys() == {"reconstruction_content", "reconstruction_style", "similarity", "total"}
        reconstruction = terms["reconstruction_content"] + terms["reconstruction_style"]
        assert terms["total"] == pytest.approx(reconstruction + 0.5 * terms["similarity"], rel=1e-5)
        assert sum(block.content_rank + block.style_rank for block in report.blocks) == len(masks.values)


def test_teachers_see_their_own_prompt_without_gradients(unet: UNet, small: World) -> None:
    denoiser = TinyDenoiser(unet)
    trained(denoiser, small, ZipLoraConfig(steps=1))
    assert [seen.with_gradient for seen in denoiser.seen] == [False, False, True, True]
    own = [picture(1).own, picture(2).own]
    assert all(torch.equal(seen.condition.context, own[i % 2].context) for i, seen in enumerate(denoiser.seen))


def test_a_loss_that_is_not_finite_stops_with_finite_masks(unet: UNet, small: World) -> None:
    denoiser = TinyDenoiser(unet, spoil=lambda x0: x0 * math.nan)
    with attach_zip(denoiser.modules, small.pair) as zipped, pytest.raises(TrainingError, match="not a finite number"):
        next(zip_lora(denoiser, zipped, [picture(1)], [picture(2)], ZipLoraConfig()))
    assert torch.equal(zipped.gates.values, torch.ones_like(zipped.gates.values))


def test_settings_and_pictures_are_checked(unet: UNet, small: World) -> None:
    with pytest.raises(SettingsError, match="steps"):
        ZipLoraConfig(steps=0)
    denoiser = TinyDenoiser(unet)
    with attach_zip(denoiser.modules, small.pair) as zipped, pytest.raises(SettingsError, match="picture"):
        next(zip_lora(denoiser, zipped, [], [picture(1)], ZipLoraConfig()))
