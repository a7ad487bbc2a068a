"""What the pack's memory code makes of the host's own classes."""

from __future__ import annotations

import types
from typing import Any
from unittest import mock

import comfy.model_management as management
import comfy.ops
import torch
from inside_host import of_the_pack, raised, unet

from benchmarks.ldm_unet import SEGMIND_VEGA
from benchmarks.speed import memory_plan
from benchmarks.speed.live_memory import LiveMemory


def check_the_estimate_holds_for_the_hosts_own_unet() -> None:
    """One student of Segmind-Vega at 512 px on the meta device, bf16, rank-64 LoRAs, the pack's own checkpointing."""
    for mode in of_the_pack("duolora_core.model.memory.estimate").CHECKPOINTED_LEVELS:
        assert 0.95 < estimate_over_measured(mode) < 1.15, (mode, estimate_over_measured(mode))


def estimate_over_measured(mode: Any) -> float:
    network = unet("SEGMIND_VEGA", comfy.ops.disable_weight_init, torch.bfloat16).requires_grad_(False)
    subject = memory_plan.subject(SEGMIND_VEGA)
    plan = memory_plan.MemoryPlan(1, mode)
    needs = memory_plan.estimate(subject.work(512), subject.storage, plan)
    gates = memory_plan.open_gates(subject.pair)
    gates.values = gates.values.to("meta").requires_grad_()
    with torch.device("meta"):
        x, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 2048)
        pooled, timesteps = torch.empty(1, 2816), torch.empty(1)

    def attention(_chosen: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **kwargs: Any) -> Any:
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out.transpose(1, 2).flatten(2)

    levels = of_the_pack("duolora_core.model.memory.activations").block_levels(subject.pair.layout)
    checkpointable = of_the_pack("nodes.host.gradient_checkpointing").checkpointable
    with (
        checkpointable(network, levels) as switch,
        memory_plan.attach(dict(network.named_modules()), subject.pair, gates) as gated,
        LiveMemory() as memory,
        gated.branches(["merge"]),
    ):
        switch.plan = plan
        options = {"optimized_attention_override": attention}
        x, text, pooled = (each.to(torch.bfloat16) for each in (x, text, pooled))
        y = network(x, timesteps, context=text, y=pooled, transformer_options=options)
        y.float().square().mean().backward()
    return needs.beside_weights / memory.peak


def check_what_the_artist_set_is_fitted_and_told_before_it_begins() -> None:
    """The micro-batch is a bound, and gives way; no checkpointing stays, and too little memory is said in time.

    On Segmind-Vega at 1024 px, of which a sample needs about 2 GB, in a card with 64, 3 and 1 GB beside the weights.
    """
    model = torch.nn.Module()
    model.diffusion_model = unet("SEGMIND_VEGA", comfy.ops.disable_weight_init, torch.bfloat16)
    patcher = types.SimpleNamespace(model=model, load_device=torch.device("cpu"), model_options={})
    patcher.clone = lambda: patcher
    denoiser, subject = of_the_pack("nodes.host.denoiser"), memory_plan.subject(SEGMIND_VEGA)
    limits = denoiser.Limits(micro_batch=2, checkpointing=False, compute="as loaded")
    for free, micro_batch in ((64, 2), (3, 1), (1, 1)):
        said: list[str] = []
        replaced: dict[str, Any] = {
            "storage": lambda patcher: subject.storage,
            "load_whole": lambda patcher, best, least: None,
            "free_memory": lambda device, free=free: free * 2**30,
            "tell": said.append,
            "HostDenoiser": lambda *arguments: None,
        }
        with (
            mock.patch.multiple(denoiser, **replaced),
            denoiser.training_denoiser(patcher, subject.work(1024), limits) as (_, plans),
        ):
            assert str(plans.current) == f"micro-batch {micro_batch} without gradient checkpointing", plans.current
            assert plans.notes[0].endswith("this may not be enough") == (free == 1), plans.notes
            assert said == (plans.notes if free == 1 else []), said


def check_scores_are_counted_where_no_fused_attention_exists() -> None:
    """In float32 unless PyTorch was told that half precision will do, as the host does where it can."""
    asked, empty, cuda = of_the_pack("nodes.host.memory").attention_scores, torch.empty, torch.backends.cuda

    def found(device: str, fused: bool = False) -> tuple[int, int] | None:
        with (
            mock.patch.object(torch, "empty", lambda *shape, device, **kinds: empty(*shape, **kinds)),
            mock.patch.object(cuda, "can_use_flash_attention", lambda asked: False),
            mock.patch.object(cuda, "can_use_efficient_attention", lambda asked: fused),
        ):
            held = asked(torch.device(device), torch.bfloat16, 64)
        return held and (held.head_channels, held.element_size)

    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    assert found("cpu") is None and found("cuda", fused=True) is None
    for half, size in ((True, 2), (False, 4)):
        cuda.allow_fp16_bf16_reduction_math_sdp(half)
        assert found("mps") == found("cuda") == (64, size), (half, found("mps"))
    cuda.allow_fp16_bf16_reduction_math_sdp(before)


def check_a_graphics_cards_libraries_keep_some_memory_for_themselves() -> None:
    with mock.patch.object(management, "get_free_memory", lambda device: 2**40):
        free, rest = of_the_pack("nodes.host.memory").free_memory, 2**40 - management.extra_reserved_memory()
        kept = {kind: rest - free(torch.device(kind)) for kind in ("cpu", "mps", "cuda")}
    assert kept == {"cpu": 0, "mps": 0, "cuda": 256 * 2**20}, kept


def check_states_in_which_a_model_cannot_be_trained_are_told() -> None:
    """One that stayed in main memory, and one with a linear layer of another class."""
    told = raised(of_the_pack("nodes.host.memory").require_whole, torch.nn.Linear(2, 2), torch.device("meta"))
    assert "weight is on cpu instead of meta" in told and "--novram" in told, told
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.ones(2, 2))
    model = types.SimpleNamespace(diffusion_model=torch.nn.ModuleDict({"to_q": layer}))
    told = raised(of_the_pack("nodes.host.denoiser").unet_layout, model)
    assert "quantised: layer to_q" in told and "fp8_e4m3fn" in told, told


def check_out_of_memory_is_known_by_its_words() -> None:
    says = of_the_pack("nodes.host.memory").is_out_of_memory
    assert says(torch.cuda.OutOfMemoryError("full"))
    assert says(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not says(RuntimeError("shapes cannot be multiplied"))
