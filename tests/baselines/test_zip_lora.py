"""ZipLoRA's masks: on the fly as in the weights, gradients as finite differences, counts as in the papers' tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, UNet, UNetConfig
from duolora_core import Gates, LowRank, kohya_state_dict, make_pair
from duolora_core.baselines.training_free import stack
from duolora_core.baselines.zip_lora import Axis, attach_zip, open_masks
from duolora_core.model.branches import Branch
from factors import add, with_changes
from masks import random_masks, small_pair
from tiny import ATTENTION, VARIED, hooks, inputs, layout, pick, run, tiny_unet, weighted_modules
from worlds import World, bare_lora, dense_low_rank, relative, world

AXES: tuple[Axis, ...] = ("output", "input")
ROWS: tuple[Branch, ...] = ("base", "content", "style", "sum", "merge")
TIGHT = 1e-6  # the network runs in float64, the factors are float32


@pytest.fixture(scope="module")
def varied() -> World:
    names = pick(VARIED)
    return world([n for i, n in enumerate(names) if i % 5], [n for i, n in enumerate(names) if i % 7], ranks=(4, 3))


@pytest.fixture(scope="module")
def small() -> World:
    return small_pair()


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
        with zipped.branches(["merge", "merge"]):
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
        with zipped.branches(ROWS):
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
    pair = make_pair(bare_lora(hollow), bare_lora(hollow), table, basis="factors")
    assert open_masks(pair).values.numel() == by_output
    wider = sum(
        table.layers[n].shape[1] - table.layers[n].shape[0] for n in names if ".attn2.to_k" in n or ".attn2.to_v" in n
    )
    assert open_masks(pair, "input").values.numel() == by_output + 2 * wider


def test_parameters_of_a_layer_of_one_lora_and_of_a_convolution(small: World) -> None:
    shapes = [layout().layers[name].shape for side in (small.pair.content, small.pair.style) for name in side]
    for place, axis in enumerate(AXES):
        with attach_zip(weighted_modules(tiny_unet()), small.pair, axis) as zipped:
            assert zipped.gates.values.numel() == sum(shape[place] for shape in shapes)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_detaching_restores_the_model_bit_for_bit(varied: World, error: type[BaseException] | None) -> None:
    unet, (x, t, conditions) = tiny_unet(torch.float32), inputs(1)
    batch = (x.float(), t, conditions)
    before, weights = forward(unet, batch), {k: v.clone() for k, v in unet.state_dict().items()}
    try:
        with attach_zip(weighted_modules(unet), varied.pair) as zipped, zipped.branches(["merge"]):
            assert relative(forward(unet, batch), before) > 0.01
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert torch.equal(forward(unet, batch), before)
    assert hooks(unet) == 0
    assert all(torch.equal(value, weights[key]) for key, value in unet.state_dict().items())
