"""1-D changes of norms and biases beside attached gates: each sample gets those of its own network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core import attach, make_pair, open_gates
from duolora_core.errors import ModelMismatchError
from duolora_core.model.branches import Branch
from factors import add, dense, random_factors, shapes_of, with_changes
from tiny import ATTENTION, hooks, inputs, layout, pick, run, weighted_modules
from worlds import World, placed_lora, random_gates, relative, world

TIGHT = 1e-6  # the network runs in float64, but the factors and their SVD are float32
BRANCHES: tuple[Branch, ...] = ("base", "content", "style", "sum", "merge")


def forward(unet: UNet, batch: tuple[Tensor, Tensor, Sequence[object]]) -> Tensor:
    with torch.no_grad():
        return run(unet, *batch)


def test_an_offset_on_a_missing_layer_is_refused(unet: UNet) -> None:
    norm = "middle_block.1.norm"
    built = world(pick(ATTENTION)[:2], offsets=({f"{norm}.diff": torch.ones(64)}, {}))
    modules = {name: module for name, module in weighted_modules(unet).items() if name != norm}
    with pytest.raises(ModelMismatchError, match=norm), attach(modules, built.pair, open_gates(built.pair)):
        pass
    assert hooks(unet) == 0


OFFSET_LAYERS = {
    "GroupNorm weight": ("middle_block.0.in_layers.0", "diff"),
    "GroupNorm bias": ("middle_block.1.norm", "diff_b"),
    "LayerNorm weight": ("middle_block.1.transformer_blocks.0.norm2", "diff"),
    "LayerNorm bias": ("middle_block.1.transformer_blocks.1.norm3", "diff_b"),
    "linear bias": ("middle_block.1.proj_out", "diff_b"),
    "linear bias without tokens": ("middle_block.0.emb_layers.1", "diff_b"),
    "conv bias": ("input_blocks.3.0.op", "diff_b"),
    "the last norm": ("out.0", "diff"),
}


def offset_values(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.{suffix}": 0.3 * torch.randn(layout().layers[name].shape[0], generator=generator)
        for name, suffix in OFFSET_LAYERS.values()
    }


def offset_model(unet: UNet, shares: Sequence[float], offsets: Sequence[Mapping[str, Tensor]], built: World) -> UNet:
    """The UNet with both LoRAs and their offsets in its parameters, each times its share."""
    weights = add(
        *(
            {name: share * dense(factors).flatten(1) for name, factors in side.items()}
            for share, side in zip(shares, (built.content, built.style), strict=True)
        )
    )
    biases: dict[str, Tensor] = {}
    for share, held in zip(shares, offsets, strict=True):
        for key, value in held.items():
            name, _, suffix = key.rpartition(".")
            target = weights if suffix == "diff" else biases
            change = share * value.double()
            target[name] = target[name] + change if name in target else change
    return with_changes(unet, weights, biases)


SHARES: dict[Branch, tuple[int, int]] = {
    "base": (0, 0),
    "content": (1, 0),
    "style": (0, 1),
    "sum": (1, 1),
    "merge": (1, 1),
}


@pytest.mark.parametrize(
    ("kind", "branch"), [*((kind, "merge") for kind in OFFSET_LAYERS), *(("all", branch) for branch in SHARES)]
)
def test_offsets_are_changed_parameters(unet: UNet, kind: str, branch: Branch) -> None:
    """Norm weights and biases of core's Train LoRA, in the content LoRA, in the style LoRA, and in both."""
    content, style = (
        {key: v for key, v in offset_values(seed).items() if kind == "all" or key == ".".join(OFFSET_LAYERS[kind])}
        for seed in (1, 2)
    )
    if kind == "linear bias":
        style = {}
    if kind == "conv bias":
        content = {}
    built = world(pick(r"^middle_block\.1\..*attn1\.to_q$"), ranks=(2, 2), offsets=(content, style))
    batch = inputs(2)
    with attach(weighted_modules(unet), built.pair, open_gates(built.pair)) as gated, gated.branches([branch, branch]):
        attached = forward(unet, batch)
    expected = forward(offset_model(unet, SHARES[branch], (content, style), built), batch)
    assert relative(attached, expected) < TIGHT
    assert relative(expected, forward(unet, batch)) > 1e-3 or branch == "base"


def test_offsets_of_different_rows_do_not_mix(unet: UNet) -> None:
    built = world(pick(r"^middle_block\.1\..*attn1\.to_q$"), offsets=(offset_values(1), offset_values(2)))
    x, t, conditions = inputs(5)
    with attach(weighted_modules(unet), built.pair, random_gates(built.pair)) as gated:
        with gated.branches(BRANCHES):
            together = forward(unet, (x, t, conditions))
        for i, branch in enumerate(BRANCHES):
            with gated.branches([branch]):
                assert relative(together[[i]], forward(unet, (x[[i]], t[[i]], conditions[i : i + 1]))) < 1e-12


def test_a_weight_offset_on_a_linear_is_refused(unet: UNet) -> None:
    """`place` refuses it already; a concept made by hand meets the same rule at the layer."""
    name = "middle_block.1.proj_in"
    plain = placed_lora(random_factors(shapes_of([name])))
    pair = make_pair(replace(plain, offsets={(name, "weight"): torch.ones(64)}), plain, layout())
    refused = pytest.raises(ModelMismatchError, match=name)
    with attach(weighted_modules(unet), pair, open_gates(pair)) as gated, gated.branches(["merge"]), refused:
        forward(unet, inputs(1))
