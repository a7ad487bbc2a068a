"""The checkpoint's own weights, and what a training holds of them, where they are not stored as they compute."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import comfy.model_patcher
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ops import manual_cast
from inside_host import config_of, of_the_pack

NARROW = {"model_channels": 32, "num_head_channels": 16, "context_dim": 64, "adm_in_channels": 48}


def check_base_weights_are_those_before_any_patch() -> None:
    """In float32, dequantised by the layer itself, also while a patch is in force; None where there is nothing."""

    class Scaled(torch.nn.Linear):
        """As the host's own layers of scaled fp8: the numbers in memory are a fourth of the weight's."""

        def convert_weight(self, weight: Any, inplace: bool = False, **_: Any) -> Any:
            return weight.float() * 4

    unet = torch.nn.ModuleDict(
        {"plain": torch.nn.Linear(2, 2), "bare": torch.nn.Linear(2, 2, bias=False), "scaled": Scaled(2, 2)}
    ).half()
    for name, parameter in unet.named_parameters():
        parameter.data.fill_(3.0 if name.endswith("bias") else 0.5 if "scaled" in name else 2.0)
    model = torch.nn.Module()
    model.diffusion_model = unet
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
    key = "diffusion_model.plain.weight"
    patcher.add_patches({key: ("diff", (torch.full((2, 2), 5.0),))}, 1.0)
    patcher.patch_model()
    weight = of_the_pack("nodes.host.base_weights").base_weights(patcher, None)
    expected = {"plain": 2.0, "plain.bias": 3.0, "bare": 2.0, "bare.bias": None, "scaled": 2.0, "missing": None}
    for name, value in expected.items():
        found = weight(name)
        assert (found is None) == (value is None), name
        assert found is None or (found.dtype == torch.float32 and bool((found == value).all())), (name, found)
    assert model.get_parameter(key).dtype == torch.float16 and float(model.get_parameter(key)[0, 0]) == 7.0


def check_casts_change_no_bit_and_are_not_held_for_the_backward() -> None:
    """A UNet stored in fp16 that computes in fp32: output and gradient are the host's own, checkpointed or not.

    Without `casts_not_held` all converted weights wait for the backward, but for those that see only the prompt or the
    time and carry no gradient.
    """
    casts, checkpointing = of_the_pack("nodes.host.casts"), of_the_pack("nodes.host.gradient_checkpointing")
    estimate, layouts = of_the_pack("duolora_core.model.memory.estimate"), of_the_pack("duolora_core.model.layout")
    torch.manual_seed(0)
    network: Any = UNetModel(
        **config_of("SEGMIND_VEGA") | NARROW, dtype=torch.float16, device="cpu", operations=manual_cast
    )
    for parameter in network.requires_grad_(False).parameters():
        parameter.normal_(std=0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    weighted = {name: m for name, m in network.named_modules() if getattr(m, "weight", None) is not None}
    layout = layouts.layout_from_shapes({name: tuple(m.weight.shape) for name, m in weighted.items()})
    levels = of_the_pack("duolora_core.model.memory.activations").block_levels(layout)
    x, text, pooled = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 64), torch.randn(2, 48)

    def run(mode: str) -> tuple[Any, Any, int]:
        """Output, gradient, and the bytes that the forward keeps for the backward."""
        at, saved = x.clone().requires_grad_(), dict[int, Any]()

        def note(tensor: Any) -> Any:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with checkpointing.checkpointable(network, levels) as switch, hooks if mode == "none" else nullcontext():
            switch.plan = estimate.MemoryPlan(1, mode)
            y = network(at, torch.tensor([10.0, 900.0]), context=text, y=pooled, transformer_options={})
            y.square().mean().backward()
        return y.detach(), at.grad, sum(each.nbytes() for each in saved.values())

    for mode in ("none", "all"):
        plain = run(mode)
        with casts.casts_not_held(network):
            ours = run(mode)
        assert torch.equal(plain[0], ours[0]) and torch.equal(plain[1], ours[1]) and plain[1].any(), mode
        assert not [name for name, module in network.named_modules() if "forward" in module.__dict__]
        if mode == "none":
            converted = 4 * sum(each.numel() for each in network.parameters() if each.ndim > 1)
            assert plain[2] - ours[2] > 0.8 * converted, (plain[2], ours[2], converted)
