"""LoRAs in training on a model: every branch is the model with that change in its weights, and only factors learn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from duolora_core.errors import ModelMismatchError
from duolora_core.model.branches import Branch
from duolora_core.train_lora import attach_loras
from duolora_core.train_lora.per_lora_prompts import read_prompts
from factors import add, with_changes
from lora_trainings import LAYERS, deltas, grown, new
from tiny import TinyDenoiser, condition, hooks, inputs, picture, run, tiny_unet, weighted_modules
from worlds import relative

BRANCHES: tuple[Branch, ...] = ("base", "content", "style", "sum")
TIGHT = 1e-12  # the network and the factors' products run in float64


def forward(unet: UNet, batch: tuple[Tensor, Tensor, Sequence[object]]) -> Tensor:
    with torch.no_grad():
        return run(unet, *batch)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_row_is_the_model_with_the_folded_loras_in_its_weights(unet: UNet, branch: Branch, columns: bool) -> None:
    loras, batch = grown(columns=columns, alpha=1.5), inputs(2)
    folded = {role: deltas(lora.fold()) for role, lora in loras.items()}
    changes = {"base": {}, "sum": add(*folded.values()), **folded}[branch]
    with attach_loras(weighted_modules(unet), loras) as attached, attached.branches([branch, branch]):
        found = forward(unet, batch)
    expected = forward(with_changes(unet, changes), batch)
    assert relative(found, expected) < 1e-6  # a fold is float32
    assert relative(expected, forward(unet, batch)) > 0.02 or branch == "base"


def test_a_batch_of_rows_is_the_single_runs(unet: UNet) -> None:
    loras, (x, t, conditions) = grown(), inputs(4)
    with attach_loras(weighted_modules(unet), loras) as attached:
        with attached.branches(BRANCHES):
            together = forward(unet, (x, t, conditions))
        for i, branch in enumerate(BRANCHES):
            with attached.branches([branch]):
                assert relative(together[[i]], forward(unet, (x[[i]], t[[i]], conditions[i : i + 1]))) < TIGHT


def test_a_new_lora_changes_nothing_and_strength_zero_neither(unet: UNet) -> None:
    batch = inputs(1)
    untouched = forward(unet, batch)
    with attach_loras(weighted_modules(unet), new()) as attached, attached.branches(["sum"]):
        assert torch.equal(forward(unet, batch), untouched)
    with attach_loras(weighted_modules(unet), grown()) as attached, attached.branches(["sum"]):
        attached.strength = 0.0
        assert torch.equal(forward(unet, batch), untouched)


def test_strength_multiplies_the_change(unet: UNet) -> None:
    loras, batch = grown(), inputs(1)
    changes = add(*(deltas(lora.fold()) for lora in loras.values()))
    with attach_loras(weighted_modules(unet), loras) as attached, attached.branches(["sum"]):
        attached.strength = 0.4
        found = forward(unet, batch)
    expected = forward(with_changes(unet, {name: 0.4 * change for name, change in changes.items()}), batch)
    assert relative(found, expected) < 1e-6


def test_only_factors_get_a_gradient_and_it_is_the_dense_models(unet: UNet) -> None:
    """d loss / d up = (d loss / d ΔW) downᵀ and d loss / d down = upᵀ (d loss / d ΔW), with ΔW as a dense weight."""
    loras, (x, t, conditions) = grown(layers=LAYERS[2:]), inputs(2)
    for lora in loras.values():
        for _, tensor in lora.trained():
            tensor.requires_grad_()
    with attach_loras(weighted_modules(unet), loras) as attached, attached.branches(["sum", "content"]):
        run(unet, x, t, conditions).square().sum().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    dense = {role: deltas(lora.fold()) for role, lora in loras.items()}
    total = dict.fromkeys(loras["style"].up, torch.zeros(()))
    for place, sides in enumerate((("content", "style"), ("content",))):
        changed = with_changes(unet, add(*(dense[side] for side in sides)))
        changed.requires_grad_()
        run(changed, x[[place]], t[[place]], conditions[place : place + 1]).square().sum().backward()
        for name in total:
            gradient = weighted_modules(changed)[name].get_parameter("weight").grad
            assert gradient is not None
            total[name] = total[name] + gradient.flatten(1)
    for name in loras["content"].up:
        up, down = loras["content"].up[name], loras["content"].down[name]
        assert up.grad is not None and down.grad is not None
        assert relative(up.grad, total[name] @ down.detach().double().T) < 1e-5
        assert relative(down.grad, up.detach().double().T @ total[name]) < 1e-5


def test_equal_own_prompts_are_the_plain_sum(unet: UNet) -> None:
    loras, denoiser, (x, t, _) = grown(), TinyDenoiser(unet), inputs(2)
    said = condition(7)
    with attach_loras(denoiser.modules, loras) as attached:
        with attached.branches(["base"]):
            texts = read_prompts(denoiser, picture(1).latent, said, {"content": said, "style": said})
        with attached.branches(["sum", "sum"]):
            plain = forward(unet, (x, t, [said, said]))
            with attached.per_lora_prompts(texts):
                assert relative(forward(unet, (x, t, [said, said])), plain) < 1e-6


def test_own_prompts_change_keys_and_values_and_nothing_else(unet: UNet) -> None:
    """Every layer puts out W x + ΔW_c x_c + ΔW_s x_s for its input x, with x_c = x_s = x outside of to_k and to_v."""
    loras, denoiser, (x, t, _) = grown(), TinyDenoiser(unet), inputs(1)
    joint, own = condition(7), {"content": condition(8), "style": condition(9)}
    folded = {role: deltas(lora.fold()) for role, lora in loras.items()}
    modules = {name: denoiser.modules[name] for name in LAYERS if ".attn" in name}
    with attach_loras(denoiser.modules, loras) as attached:
        with attached.branches(["base"]):
            texts = read_prompts(denoiser, picture(1).latent, joint, own)  # type: ignore[arg-type]
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        handles = [
            module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: (args[0], out)}))
            for name, module in modules.items()
        ]
        with attached.branches(["sum"]), attached.per_lora_prompts(texts):
            forward(unet, (x, t, [joint]))
        for handle in handles:
            handle.remove()
    apart = 0
    for name, (given, output) in seen.items():
        expected = given @ modules[name].get_parameter("weight").T
        bias = dict(modules[name].named_parameters()).get("bias")
        expected = expected if bias is None else expected + bias
        for role, change in folded.items():
            if name in change:
                reads_text = name.endswith(("attn2.to_k", "attn2.to_v"))
                expected = expected + (own[role].context.double()[None] if reads_text else given) @ change[name].T
                apart += reads_text
        assert relative(output, expected) < 1e-6, name
    assert apart >= 8


def test_states_that_all_layers_read_are_kept_once(unet: UNet) -> None:
    denoiser = TinyDenoiser(unet)
    [texts] = read_prompts(denoiser, picture(1).latent, condition(1), {"content": condition(2)}).values()
    assert len({id(states) for states in texts.values()}) == 1
    assert torch.equal(next(iter(texts.values())), condition(2).context.double()[None])
    assert set(texts) == {n for n in denoiser.layout.layers if n.endswith((".attn2.to_k", ".attn2.to_v"))}


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_detaching_restores_the_model(error: type[BaseException] | None) -> None:
    unet, batch = tiny_unet(), inputs(1)
    before = forward(unet, batch)
    try:
        with attach_loras(weighted_modules(unet), grown()) as attached, attached.branches(["sum"]):
            forward(unet, batch)
            if error is not None:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert hooks(unet) == 0
    assert torch.equal(forward(unet, batch), before)


def test_a_layer_that_no_lora_can_change_is_refused(unet: UNet) -> None:
    modules = weighted_modules(unet)
    del modules[LAYERS[3]]
    with pytest.raises(ModelMismatchError, match=LAYERS[3]), attach_loras(modules, grown()):
        raise AssertionError("attached all the same")
    assert hooks(unet) == 0


def test_rows_are_needed_and_gates_are_not_there(unet: UNet) -> None:
    with attach_loras(weighted_modules(unet), grown()) as attached:
        with pytest.raises(RuntimeError, match="outside of"):
            forward(unet, inputs(1))
        with pytest.raises(RuntimeError, match="batch of 2 samples, but 1 rows"), attached.branches(["sum"]):
            forward(unet, inputs(2))
        with pytest.raises(RuntimeError, match="no gates"), attached.branches(["merge"]):
            forward(unet, inputs(1))


def test_half_precision_follows_the_model_and_gradients_come_back_in_float32() -> None:
    unet, loras = tiny_unet(torch.bfloat16), grown()
    x, t, conditions = inputs(1)
    for lora in loras.values():
        for _, tensor in lora.trained():
            tensor.requires_grad_()
    with attach_loras(weighted_modules(unet), loras) as attached, attached.branches(["sum"]):
        output = run(unet, x.bfloat16(), t, conditions)
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
    gradients = [tensor.grad for lora in loras.values() for _, tensor in lora.trained()]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
