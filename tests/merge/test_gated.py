"""A model with attached gates against copies of it whose weights were really changed, in float64."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from benchmarks.ldm_unet import UNet
from duolora_core import Gates, attach, make_merged, open_gates
from duolora_core.errors import ModelMismatchError
from duolora_core.merge.stack import Basis
from duolora_core.model.branches import Branch
from factors import add, dense, with_changes
from tiny import ATTENTION, hooks, inputs, pick, run, tiny_unet, weighted_modules
from worlds import World, dense_low_rank, random_gates, relative, varied_world, world

TIGHT = 1e-6  # the network runs in float64, but the factors and their SVD are float32


@pytest.fixture(scope="module")
def varied() -> World:
    return varied_world()


def dense_row(built: World, branch: Branch, gates: Gates) -> dict[str, Tensor]:
    """{layer: ΔW} of a row, from the files' own factors except for the merge, which is defined on the pair's basis."""
    content = {name: dense(factors).flatten(1) for name, factors in built.content.items()}
    style = {name: dense(factors).flatten(1) for name, factors in built.style.items()}
    branches = {"base": {}, "content": content, "style": style, "sum": add(content, style), "merge": built.dense(gates)}
    return branches[branch]


def forward(unet: UNet, batch: tuple[Tensor, Tensor, Sequence[object]]) -> Tensor:
    with torch.no_grad():
        return run(unet, *batch)


BRANCHES: tuple[Branch, ...] = ("base", "content", "style", "sum", "merge")


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_row_is_the_model_with_that_delta_in_its_weights(unet: UNet, varied: World, branch: Branch) -> None:
    gates, batch = random_gates(varied.pair), inputs(2)
    with attach(weighted_modules(unet), varied.pair, gates) as gated, gated.branches([branch, branch]):
        attached = forward(unet, batch)
    expected = forward(with_changes(unet, dense_row(varied, branch, gates)), batch)
    assert relative(attached, expected) < TIGHT
    base = forward(unet, batch)
    assert relative(expected, base) > 0.05 or branch == "base"  # the changes are not too small to be seen


def test_a_batch_of_rows_is_the_single_runs(unet: UNet, varied: World) -> None:
    gates, (x, t, conditions) = random_gates(varied.pair), inputs(5)
    with attach(weighted_modules(unet), varied.pair, gates) as gated:
        with gated.branches(BRANCHES):
            together = forward(unet, (x, t, conditions))
        for i, branch in enumerate(BRANCHES):
            with gated.branches([branch]):
                alone = forward(unet, (x[[i]], t[[i]], conditions[i : i + 1]))
            assert relative(together[[i]], alone) < 1e-12


def test_mixed_rows_pass_the_gradient_of_the_merge_alone(unet: UNet, varied: World) -> None:
    """Samples of the merge around others: the gates' gradient is the sum of what each sample alone gives."""
    x, t, conditions = inputs(4)
    branches: tuple[Branch, ...] = ("merge", "content", "base", "merge")

    def gradient(picked: list[int]) -> Tensor:
        gates = random_gates(varied.pair)
        gates.values = gates.values.double().requires_grad_()
        with attach(weighted_modules(unet), varied.pair, gates) as gated, gated.branches([branches[i] for i in picked]):
            run(unet, x[picked], t[picked], [conditions[i] for i in picked]).square().sum().backward()
        assert gates.values.grad is not None
        return gates.values.grad

    assert relative(gradient([0, 1, 2, 3]), gradient([0]) + gradient([3])) < 1e-12


def test_all_gates_open_is_the_plain_sum(unet: UNet, varied: World) -> None:
    with (
        attach(weighted_modules(unet), varied.pair, open_gates(varied.pair)) as gated,
        gated.branches(["merge", "sum"]),
    ):
        x, t, conditions = inputs(1)
        merge, plain = forward(unet, (x.expand(2, -1, -1, -1), t.expand(2), conditions * 2))
    assert relative(merge, plain) < 1e-14


@pytest.mark.parametrize("open_side", ["content", "style"])
def test_one_sides_gates_closed_is_the_other_alone(unet: UNet, varied: World, open_side: Branch) -> None:
    gates = open_gates(varied.pair)
    gates.values[gates.is_content() != (open_side == "content")] = 0.0
    with attach(weighted_modules(unet), varied.pair, gates) as gated, gated.branches(["merge", open_side]):
        x, t, conditions = inputs(1)
        merge, alone = forward(unet, (x.expand(2, -1, -1, -1), t.expand(2), conditions * 2))
    assert relative(merge, alone) < 1e-14


def test_closed_gates_are_the_untouched_model(unet: UNet, varied: World) -> None:
    gates, batch = open_gates(varied.pair), inputs(2)
    gates.values.zero_()
    untouched = forward(unet, batch)
    with attach(weighted_modules(unet), varied.pair, gates) as gated, gated.branches(["base", "merge"]):
        assert torch.equal(forward(unet, batch), untouched)


KINDS = {
    "linear over tokens": r"^middle_block\.1\.transformer_blocks\.0\.attn2\.to_k$",
    "proj_in": r"^middle_block\.1\.proj_in$",
    "emb_layers": r"^middle_block\.0\.emb_layers\.1$",
    "time_embed": r"^time_embed\.[02]$",
    "label_emb": r"^label_emb\.0\.[02]$",
    "conv 3x3": r"^middle_block\.0\.in_layers\.2$",
    "conv 1x1": r"^input_blocks\.4\.0\.skip_connection$",
    "conv of stride 2": r"^input_blocks\.3\.0\.op$",
    "conv after upsampling": r"^output_blocks\.2\.2\.conv$",
    "first and last conv": r"^(input_blocks\.0\.0|out\.2)$",
}


@pytest.mark.parametrize("pattern", list(KINDS.values()), ids=list(KINDS))
def test_each_kind_of_layer_merges_as_its_weight_would(unet: UNet, pattern: str) -> None:
    built = world(pick(pattern), ranks=(3, 2))
    gates, batch = random_gates(built.pair), inputs(2)
    with attach(weighted_modules(unet), built.pair, gates) as gated, gated.branches(["merge", "merge"]):
        attached = forward(unet, batch)
    reference = forward(with_changes(unet, built.dense(gates)), batch)
    change = reference - forward(unet, batch)
    assert relative(attached - forward(unet, batch), change) < 1e-5  # on the change alone, where nothing hides


@pytest.mark.parametrize("basis", ["svd", "factors"])
def test_rank_larger_than_the_layer(unet: UNet, basis: Basis) -> None:
    """Rank 40 on a 16-channel convolution and a 4-channel output."""
    built = world(pick(r"^(out\.2|output_blocks\.8\.0\.skip_connection)$"), ranks=(40, 40), basis=basis)
    gates, batch = random_gates(built.pair), inputs(1)
    with attach(weighted_modules(unet), built.pair, gates) as gated, gated.branches(["merge"]):
        attached = forward(unet, batch)
    assert built.pair.ranks("out.2") == ((4, 4) if basis == "svd" else (40, 40))
    assert relative(attached, forward(with_changes(unet, built.dense(gates)), batch)) < TIGHT


def test_merged_lora_is_the_attached_merge(unet: UNet, varied: World) -> None:
    gates, batch = random_gates(varied.pair), inputs(2)
    with attach(weighted_modules(unet), varied.pair, gates) as gated, gated.branches(["merge", "merge"]):
        attached = forward(unet, batch)
    folded = make_merged(varied.pair, gates).fold(dead_gate=0.0)
    merged = with_changes(unet, {name: dense_low_rank(low_rank) for name, low_rank in folded.layers.items()})
    assert relative(forward(merged, batch), attached) < TIGHT


class Interruption(BaseException):
    """As the host's own interrupt: not an Exception."""


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Interruption])
def test_detaching_restores_the_model_bit_for_bit(varied: World, error: type[BaseException] | None) -> None:
    unet, batch = tiny_unet(torch.float32), inputs(2)
    batch = (batch[0].float(), *batch[1:])
    before, weights = forward(unet, batch), {k: v.clone() for k, v in unet.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in unet.named_modules()}
    attached = attach(weighted_modules(unet), varied.pair, random_gates(varied.pair))
    with swallowing(error), attached as gated, gated.branches(["merge", "sum"]):
        assert relative(forward(unet, batch), before) > 0.01
        if error is not None:
            raise error
    assert torch.equal(forward(unet, batch), before)
    assert hooks(unet) == 0
    assert all(torch.equal(value, weights[key]) for key, value in unet.state_dict().items())
    assert {name: set(vars(module)) for name, module in unet.named_modules()} == attributes


@contextmanager
def swallowing(error: type[BaseException] | None) -> Generator[None, None, None]:
    if error is None:
        yield
    else:
        with pytest.raises(error):
            yield


def test_a_layer_that_cannot_be_attached_leaves_no_hook(varied: World) -> None:
    unet = tiny_unet()
    modules = weighted_modules(unet)
    for broken in (
        {name: module for name, module in modules.items() if name != varied.pair.names[-1]},
        {**modules, varied.pair.names[-1]: nn.Conv2d(4, 4, 3, groups=2)},
        {**modules, varied.pair.names[-1]: nn.LayerNorm(4)},
    ):
        refused = pytest.raises(ModelMismatchError, match=varied.pair.names[-1])
        with refused, attach(broken, varied.pair, open_gates(varied.pair)):
            pass
        assert hooks(unet) == 0


def test_running_outside_rows_raises(unet: UNet, varied: World) -> None:
    with attach(weighted_modules(unet), varied.pair, open_gates(varied.pair)) as gated:
        with pytest.raises(RuntimeError, match="run outside of"):
            forward(unet, inputs(1))
        with gated.branches(["base"]):
            forward(unet, inputs(1))
        with pytest.raises(RuntimeError, match="run outside of"):
            forward(unet, inputs(1))


def test_more_samples_than_rows_raises(unet: UNet, varied: World) -> None:
    attached = attach(weighted_modules(unet), varied.pair, open_gates(varied.pair))
    refused = pytest.raises(RuntimeError, match="batch of 2 samples, but 1 gate rows")
    with attached as gated, gated.branches(["base"]), refused:
        forward(unet, inputs(2))


def test_inner_rows_give_way_to_the_outer_again(unet: UNet, varied: World) -> None:
    batch = inputs(1)
    with attach(weighted_modules(unet), varied.pair, random_gates(varied.pair)) as gated, gated.branches(["merge"]):
        outer = forward(unet, batch)
        with gated.branches(["base"]):
            assert relative(forward(unet, batch), outer) > 0.01
        assert torch.equal(forward(unet, batch), outer)


def test_gates_are_read_anew_at_every_rows(unet: UNet, varied: World) -> None:
    gates, batch = open_gates(varied.pair), inputs(1)
    with attach(weighted_modules(unet), varied.pair, gates) as gated:
        gates.values = random_gates(varied.pair).values
        with gated.branches(["merge"]):
            found = forward(unet, batch)
    assert relative(found, forward(with_changes(unet, varied.dense(gates)), batch)) < TIGHT


def test_gates_need_not_be_where_the_model_is(varied: World) -> None:
    """Gates on the CPU, as before and after training, under a model on another device (here one without memory)."""
    unet = tiny_unet().to("meta")
    offset = {"middle_block.1.norm.diff": torch.ones(64), "middle_block.1.proj_in.diff_b": torch.ones(64)}
    for pair in (varied.pair, world(pick(ATTENTION)[:2], offsets=(offset, {})).pair):
        with attach(weighted_modules(unet), pair, open_gates(pair)) as gated, gated.branches(["merge", "content"]):
            x, t, conditions = inputs(2)
            context, pooled = (torch.stack([getattr(c, part) for c in conditions]) for part in ("context", "pooled"))
            output = unet(x.to("meta"), t.to("meta"), context.to("meta", x.dtype), pooled.to("meta", x.dtype))
    assert output.shape == x.shape


def test_half_precision_follows_the_model(varied: World) -> None:
    """Factors are cast to the activations' dtype; the deviation is bf16's, about 2⁻⁸ per layer."""
    exact, coarse, batch = tiny_unet(), tiny_unet(torch.bfloat16), inputs(2)
    outputs: list[Tensor] = []
    for unet, x in ((exact, batch[0]), (coarse, batch[0].to(torch.bfloat16))):
        with (
            attach(weighted_modules(unet), varied.pair, random_gates(varied.pair)) as gated,
            gated.branches(["merge", "merge"]),
        ):
            outputs.append(forward(unet, (x, *batch[1:])))
    assert outputs[1].dtype == torch.bfloat16
    assert relative(outputs[1], outputs[0]) < 0.1


def test_one_attached_pair_serves_several_dtypes(varied: World) -> None:
    unet, batch = tiny_unet(), inputs(1)
    with attach(weighted_modules(unet), varied.pair, random_gates(varied.pair)) as gated, gated.branches(["merge"]):
        wide = forward(unet, batch)
        narrow = forward(unet.float(), (batch[0].float(), *batch[1:]))
        assert relative(narrow, wide) < 1e-4
        assert torch.equal(forward(unet.double(), batch), forward(unet, batch))
