"""DreamBooth's loop: what is minimised, and how fast."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.ldm_unet import UNet
from duolora_core.errors import SettingsError
from duolora_core.model.denoiser import Prediction
from duolora_core.model.sample import Guidance, sample
from duolora_core.train_lora import Rates, TrainConfig, attach_loras, train_lora
from duolora_core.train_lora.examples import draw_samples
from duolora_core.train_lora.loss_weighting import snr_weight
from factors import add, with_changes
from gradients import gradients
from lora_trainings import CONFIG, LAYERS, deltas, example, grown, new, stopped, trained_loras
from tiny import TinyDenoiser, hooks, run
from worlds import relative


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_the_loss_is_the_papers(unet: UNet, prediction: Prediction, gamma: float | None) -> None:
    """Against the plain UNet with dense changes in its weights, in the paper's own latents √ā x0 + √(1-ā) n."""
    denoiser, loras, own, classes = TinyDenoiser(unet, prediction), grown(), [example(1), example(3)], [example(5)]
    config = replace(CONFIG, steps=1, batch=2, min_snr_gamma=gamma, prior_weight=0.6)
    changed = with_changes(unet, add(*(deltas(lora.fold()) for lora in loras.values())))
    [report] = trained_loras(denoiser, loras, config, own, classes).reports
    terms: dict[str, float] = {"pictures": 0.0, "class": 0.0}
    total = 0.0
    for term, pictures in (("pictures", own), ("class", classes)):
        for draw in draw_samples(pictures, denoiser.sigmas, 2, 0, config.seed, term):  # type: ignore[arg-type]
            alpha = 1 / (1 + draw.sigma.double().square())
            x0, noise = draw.example.latent.double(), draw.noise.double()
            z = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
            target = noise if prediction == "eps" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
            timestep = denoiser.timesteps(draw.sigma[None])
            error = (run(changed, z[None], timestep, [draw.example.condition])[0] - target).square().mean()
            terms[term] += float(error) / 2
            weight = float(snr_weight(draw.sigma, gamma, prediction))
            total += weight * float(error) / 2 * (0.6 if term == "class" else 1.0)
    assert {name: report.losses[name] for name in terms} == pytest.approx(terms, rel=1e-4)
    assert report.losses["total"] == pytest.approx(total, rel=1e-4)


def test_the_gradient_is_the_slope_of_the_loss(unet: UNet) -> None:
    """By central differences over the same draws; a learning rate of 0 only measures."""
    still = replace(CONFIG, steps=1, learning_rate=0.0, clip=math.inf, min_snr_gamma=5.0)

    def loss(shift: Tensor) -> tuple[float, Tensor]:
        loras, start = grown(alpha=1.5), 0
        for lora in loras.values():
            moved: dict[str, Tensor] = {}
            for name, tensor in lora.trained():
                moved[name] = tensor + shift[start : start + tensor.numel()].view_as(tensor)
                start += tensor.numel()
            lora.put(moved)
        with gradients() as seen:
            reports = trained_loras(TinyDenoiser(unet), loras, still, class_examples=[example(5)]).reports
        return reports[0].losses["total"], seen[0]

    count = sum(tensor.numel() for lora in grown().values() for _, tensor in lora.trained())
    direction = torch.randn(count, generator=torch.Generator().manual_seed(0))
    _, gradient = loss(torch.zeros(count))
    slope = (loss(0.01 * direction)[0] - loss(-0.01 * direction)[0]) / 0.02
    assert slope == pytest.approx(float(gradient @ direction), rel=0.02)


def test_training_lowers_the_loss_and_touches_nothing_but_the_lora(unet: UNet) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    loras, still = new(), replace(CONFIG, steps=4, learning_rate=0.0, seed=50)

    def measured() -> float:
        return sum(report.losses["pictures"] for report in trained_loras(TinyDenoiser(unet), loras, still).reports)

    start = measured()
    trained_loras(TinyDenoiser(unet), loras, replace(CONFIG, steps=30))
    assert measured() < 0.93 * start
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert hooks(unet) == 0
    assert all(not tensor.requires_grad for _, tensor in loras["content"].trained())


def test_prior_preservation_keeps_the_class_pictures(unet: UNet) -> None:
    """Their loss ends lower than without."""
    classes, still = [example(5), example(6)], replace(CONFIG, steps=4, learning_rate=0.0, seed=50)

    def class_loss(weight: float) -> float:
        loras = new()
        trained_loras(TinyDenoiser(unet), loras, replace(CONFIG, steps=30, prior_weight=weight), class_examples=classes)
        reports = trained_loras(TinyDenoiser(unet), loras, still, class_examples=classes).reports
        return sum(report.losses["class"] for report in reports)

    assert class_loss(2.0) < 0.95 * class_loss(0.0)


def test_rates_of_parts_scale_the_first_step(unet: UNet) -> None:
    """AdamW's first step moves every number by its learning rate, whatever the gradient's size."""
    rates = Rates(attention=0.5, feed_forward=2.0, projection=0.0, convolution=3.0, style_blocks=0.25)
    outcome = trained_loras(TinyDenoiser(unet), new(), replace(CONFIG, steps=1, rates=rates)).loras["content"]
    expected = {"attn": 0.5, "ff": 2.0, "proj": 0.0}
    for name, up in outcome.up.items():
        part = next((value for mark, value in expected.items() if f".{mark}" in name), 3.0)
        block = layer_block(name)
        moved = 0.01 * part * (0.25 if block == "shallow" else 1.0)
        assert float(up.abs().median()) == pytest.approx(moved, rel=1e-2), name


def layer_block(name: str) -> str:
    """TINY attends deepest in input blocks 7 and 8, the middle and the first three output blocks."""
    return "deep" if name.startswith(("middle_block", "output_blocks.0.", "output_blocks.1.")) else "shallow"


def test_warmup_and_schedule_scale_the_steps(unet: UNet) -> None:
    config = replace(CONFIG, steps=4, warmup=1, schedule="linear")
    rates: list[float] = []

    def record(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        rates.extend(group["lr"] for group in optimiser.param_groups)

    handle = register_optimizer_step_pre_hook(record)
    try:
        trained_loras(TinyDenoiser(unet), new(), config)
    finally:
        handle.remove()
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.005])


def test_a_lora_learns_at_every_strength_of_the_range(unet: UNet) -> None:
    levels: list[float] = []

    def note(x0: Tensor) -> Tensor:
        levels.append(attached.strength)
        return x0

    denoiser = TinyDenoiser(unet, spoil=note)
    with attach_loras(denoiser.modules, new()) as attached:
        for _ in train_lora(denoiser, attached, [example(1)], replace(CONFIG, steps=12, batch=1, strengths=(0.6, 1.3))):
            pass
        assert attached.strength == 1.0
    assert len(set(levels)) == 12 and all(0.6 <= level <= 1.3 for level in levels)
    assert min(levels) < 0.8 and max(levels) > 1.1


@pytest.mark.parametrize("taken", [1, 2])
def test_leaving_after_any_step_keeps_what_was_reached(unet: UNet, taken: int) -> None:
    loras, denoiser = new(), TinyDenoiser(unet)
    with attach_loras(denoiser.modules, loras) as attached:
        stopped(denoiser, attached, CONFIG, taken)
    expected = trained_loras(TinyDenoiser(unet), new(), replace(CONFIG, steps=taken)).loras["content"].fold()
    reached = loras["content"].fold()
    assert all(torch.equal(each.up, expected.layers[name].up) for name, each in reached.layers.items())
    assert set(reached.layers) == set(LAYERS)


def test_painting_between_two_steps_shows_the_lora_and_does_not_disturb_it(unet: UNet) -> None:
    loras, denoiser, noise = new(), TinyDenoiser(unet), torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    guidance = Guidance(example(1).condition, example(2).condition, cfg=2.0)
    with attach_loras(denoiser.modules, loras) as attached:
        painted: list[Tensor] = []
        for _ in train_lora(denoiser, attached, [example(1)], CONFIG):
            painted.append(sample(denoiser, attached, "content", guidance, noise, steps=2))
        base = sample(denoiser, attached, "base", guidance, noise, steps=2)
    assert relative(painted[0], base) > 1e-3 and relative(painted[-1], painted[0]) > 1e-3
    expected = trained_loras(TinyDenoiser(unet), new()).loras["content"]
    assert all(torch.equal(up, expected.up[name]) for name, up in loras["content"].up.items())


def test_training_without_a_picture_is_refused(unet: UNet) -> None:
    with pytest.raises(SettingsError, match="at least one picture"):
        trained_loras(TinyDenoiser(unet), new(), CONFIG, [])


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"batch": 0}, {"warmup": 4}, {"min_snr_gamma": 0.0}, {"strengths": (2, 1)}, {"schedule": "step"}],
)
def test_settings_outside_their_meaning_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"must"):
        replace(TrainConfig(steps=3), **setting)
