"""ZipLoRA's masks: on the fly as in the weights, gradients as finite differences, counts as in the papers' tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, UNet, UNetConfig
from duolora_core import Gates, LowRank, StepReport, kohya_state_dict, make_pair
from duolora_core.baselines import stack
from duolora_core.denoiser import Prediction
from duolora_core.errors import SettingsError, TrainingError
from duolora_core.gated_lora import Row
from duolora_core.zip_lora import Axis, ZipLoraConfig, attach_zip, mask_similarity, open_masks, zip_lora
from worlds import (
    ATTENTION,
    VARIED,
    TinyDenoiser,
    World,
    add,
    bare_concept,
    dense_low_rank,
    hooks,
    inputs,
    layout,
    pick,
    picture,
    relative,
    run,
    tiny_unet,
    weighted_modules,
    with_changes,
    world,
)

AXES: tuple[Axis, ...] = ("output", "input")
ROWS: tuple[Row, ...] = ("base", "content", "style", "sum", "merge")
TIGHT = 1e-6  # the network runs in float64, the factors are float32
LAYERS = pick(
    r"^(time_embed\.0|input_blocks\.3\.0\.op|out\.2|middle_block\.0\.in_layers\.2"
    r"|middle_block\.1\.transformer_blocks\.[01]\.attn2\.to_[kv]|output_blocks\.4\.1\.transformer_blocks\.0\.ff\.net\.2)$"
)


@pytest.fixture(scope="module")
def varied() -> World:
    names = pick(VARIED)
    return world([n for i, n in enumerate(names) if i % 5], [n for i, n in enumerate(names) if i % 7], ranks=(4, 3))


@pytest.fixture(scope="module")
def small() -> World:
    return world(LAYERS[:-1], LAYERS[1:], ranks=(3, 2))


def random_masks(masks: Gates, seed: int = 0) -> Tensor:
    """Around 0.6, some of them negative."""
    return 0.6 + 0.5 * torch.randn(masks.values.shape, generator=torch.Generator().manual_seed(seed))


def dense_masked(built: World, masks: Gates, axis: Axis) -> dict[str, Tensor]:
    """{layer: m_c ⊗ ΔW_c + m_s ⊗ ΔW_s} in float64 and in the shape of the weight."""
    changes: list[dict[str, Tensor]] = []
    for side, mask in ((built.pair.content, masks.content), (built.pair.style, masks.style)):
        masked: dict[str, Tensor] = {}
        for name, low_rank in side.items():
            shape = layout().layers[name].shape
            place = 0 if axis == "output" else 1
            broad = mask(name).double().view([-1 if i == place else 1 for i in range(len(shape))])
            masked[name] = broad * dense_low_rank(low_rank).view(shape)
        changes.append(masked)
    return add(*changes)


def forward(unet: UNet, batch: tuple[Tensor, Tensor, Sequence[object]]) -> Tensor:
    with torch.no_grad():
        return run(unet, *batch)


@pytest.mark.parametrize("axis", AXES)
def test_masked_on_the_fly_is_masked_in_the_weights_is_folded(unet: UNet, varied: World, axis: Axis) -> None:
    batch = inputs(2)
    with attach_zip(weighted_modules(unet), varied.pair, axis) as zipped:
        zipped.gates.values = random_masks(zipped.gates)
        with zipped.rows(["merge", "merge"]):
            attached = forward(unet, batch)
    expected = forward(with_changes(unet, dense_masked(varied, zipped.gates, axis)), batch)
    assert relative(expected, forward(unet, batch)) > 0.05
    assert relative(attached, expected) < TIGHT
    folded = {name: dense_low_rank(low_rank) for name, low_rank in zipped.fold().layers.items()}
    assert relative(forward(with_changes(unet, folded), batch), attached) < TIGHT


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", pick(VARIED))
def test_each_kind_of_layer_is_masked_as_its_weight(unet: UNet, axis: Axis, name: str) -> None:
    built = world([name], ranks=(3, 2))
    with attach_zip(weighted_modules(unet), built.pair, axis) as zipped:
        zipped.gates.values = random_masks(zipped.gates)
    expected = dense_masked(built, zipped.gates, axis)[name].flatten(1)
    assert relative(dense_low_rank(zipped.fold().layers[name]), expected) < TIGHT


@pytest.mark.parametrize("axis", AXES)
def test_a_batch_of_rows_is_the_single_networks(unet: UNet, varied: World, axis: Axis) -> None:
    x, t, conditions = inputs(len(ROWS))
    sides = [
        {name: dense_low_rank(lora) for name, lora in side.items()} for side in (varied.pair.content, varied.pair.style)
    ]
    with attach_zip(weighted_modules(unet), varied.pair, axis) as zipped:
        zipped.gates.values = random_masks(zipped.gates)
        with zipped.rows(ROWS):
            together = forward(unet, (x, t, conditions))
    flat = {name: change.flatten(1) for name, change in dense_masked(varied, zipped.gates, axis).items()}
    changes = ({}, sides[0], sides[1], add(*sides), flat)
    for i, change in enumerate(changes):
        alone = forward(with_changes(unet, change), (x[[i]], t[[i]], conditions[i : i + 1]))
        assert relative(together[[i]], alone) < TIGHT, ROWS[i]


@pytest.mark.parametrize("axis", AXES)
def test_open_masks_are_the_plain_sum(varied: World, axis: Axis) -> None:
    with attach_zip(weighted_modules(tiny_unet()), varied.pair, axis) as zipped:
        folded = zipped.fold(content_strength=0.7, style_strength=-0.4)
    expected = stack(varied.pair, content_strength=0.7, style_strength=-0.4)
    assert folded.shapes == expected.shapes
    for name, low_rank in expected.layers.items():
        assert torch.equal(folded.layers[name].delta(), low_rank.delta())


def test_a_fold_can_be_saved(varied: World) -> None:
    with attach_zip(weighted_modules(tiny_unet()), varied.pair) as zipped:
        tensors = kohya_state_dict(zipped.fold())
    assert sum(key.endswith(".lora_up.weight") for key in tensors) == len(varied.pair.names)


@pytest.mark.parametrize(
    ("config", "by_output"),
    [(SDXL, 1_331_200), (SSD_1B, 614_400), (SEGMIND_VEGA, 256_000)],
    ids=["sdxl", "ssd", "vega"],
)
def test_parameters_are_the_papers(config: UNetConfig, by_output: int) -> None:
    """1.33 M on the attention layers of SDXL, whatever the rank; over inputs it differs by the text states' width."""
    table = layout(config)
    names = pick(ATTENTION, table)
    zero = torch.zeros(())
    hollow = {
        n: LowRank(zero.expand(table.layers[n].shape[0], 64), zero.expand(64, table.layers[n].shape[1])) for n in names
    }
    pair = make_pair(bare_concept(hollow), bare_concept(hollow), table, basis="factors")
    assert open_masks(pair).values.numel() == by_output
    wider = sum(
        table.layers[n].shape[1] - table.layers[n].shape[0] for n in names if ".attn2.to_k" in n or ".attn2.to_v" in n
    )
    assert open_masks(pair, "input").values.numel() == by_output + 2 * wider


def test_parameters_of_a_layer_of_one_lora_and_of_a_convolution(small: World) -> None:
    shapes = [layout().layers[name].shape for side in (small.pair.content, small.pair.style) for name in side]
    for place, axis in enumerate(AXES):
        with attach_zip(weighted_modules(tiny_unet()), small.pair, axis) as zipped:
            assert zipped.parameters == sum(shape[place] for shape in shapes)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_detaching_restores_the_model_bit_for_bit(varied: World, error: type[BaseException] | None) -> None:
    unet, (x, t, conditions) = tiny_unet(torch.float32), inputs(1)
    batch = (x.float(), t, conditions)
    before, weights = forward(unet, batch), {k: v.clone() for k, v in unet.state_dict().items()}
    try:
        with attach_zip(weighted_modules(unet), varied.pair) as zipped, zipped.rows(["merge"]):
            assert relative(forward(unet, batch), before) > 0.01
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert torch.equal(forward(unet, batch), before)
    assert hooks(unet) == 0
    assert all(torch.equal(value, weights[key]) for key, value in unet.state_dict().items())


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
