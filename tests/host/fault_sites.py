"""Where a merge is made to fail: functions that its stages go through, in the order in which they are reached.

A site is a function of ours ("pack:module:name") or of the host or PyTorch ("module:name") in one graph. The fault is
raised when the function is called, so nothing that it would have computed is made up.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

When = Literal["before", "after", "in backward"]
"""Before the function has done anything, after it has done all, or when the gradient of its result is computed."""

Graphs = tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """One function that a stage calls.

    Attributes:
        graphs: the names of the graphs in which to look for it
        target: "[pack:]module:function" or "[pack:]module:Class.method"
        grad: count only calls with gradients on, or only those without; None: all
    """

    stage: str
    graphs: Graphs
    target: str
    when: When = "before"
    grad: bool | None = None


OWN, GIVEN, ZIP, USE, SCORE = "own pictures", "given pictures", "ZipLoRA", "use", "score"
_MERGES, _TRAININGS, _ALL = (OWN, GIVEN), (OWN, GIVEN, ZIP), (OWN, GIVEN, ZIP, USE)
_DENOISER, _MEMORY = "pack:nodes.host.denoiser", "pack:nodes.host.memory"

SITES = (
    Site("load files", _ALL, "pack:nodes.run.load_lora:read_lora"),
    Site("load files", _MERGES, "pack:duolora_core.lora.read:read_tensors"),
    Site("load files", (USE,), "pack:nodes.masks:read_masks"),
    Site("prepare", _ALL, "pack:nodes.run.placed:unet_layout"),
    Site("prepare", _TRAININGS, "pack:nodes.run.placed:match_to_model"),
    Site("prepare", _MERGES, "pack:duolora_core.lora.low_rank:LowRank.svd_basis"),  # in a thread of a pool
    Site("prepare", _MERGES, "pack:nodes.run.merge:starting_gates"),
    Site("text encodings", _TRAININGS, "comfy.sd:load_lora_for_models"),
    Site("text encodings", _TRAININGS, "comfy.sd:CLIP.encode_from_tokens"),
    Site("text encodings", _TRAININGS, "comfy.model_base:BaseModel.extra_conds"),
    Site("encode pictures", (GIVEN, ZIP), "comfy.sd:VAE.encode"),
    Site("own pictures", (OWN,), "comfy.sample:sample"),
    Site("own pictures", (OWN,), "comfy.samplers:calc_cond_batch"),
    Site("memory planning", _TRAININGS, f"{_DENOISER}:plain_clone"),
    Site("memory planning", _TRAININGS, f"{_DENOISER}:storage"),
    Site("memory planning", _TRAININGS, f"{_DENOISER}:candidate_plans"),
    Site("memory planning", _TRAININGS, f"{_MEMORY}:require_whole"),
    Site("memory planning", _TRAININGS, f"{_DENOISER}:release"),
    Site("attach", _TRAININGS, "pack:nodes.host.weights:alias_of"),
    Site("attach", _TRAININGS, "pack:nodes.host.gradient_checkpointing:_checkpointing"),
    Site("attach", _TRAININGS, f"{_DENOISER}:HostDenoiser.__init__"),
    Site("attach", _TRAININGS, "torch.nn:Module.register_forward_hook"),
    Site("teacher forward", _TRAININGS, f"{_DENOISER}:HostDenoiser.__call__", grad=False),
    Site("teacher forward", _TRAININGS, "pack:duolora_core.merge.gated:GatedLora._stack", grad=False),
    Site("student forward", _TRAININGS, f"{_DENOISER}:HostDenoiser.__call__", grad=True),
    Site("student forward", _TRAININGS, "comfy.ldm.modules.attention:BasicTransformerBlock.forward", grad=True),
    Site("backward", _TRAININGS, "torch:Tensor.backward"),
    Site("backward", _MERGES, "pack:duolora_core.merge.gated:GatedLora.add", "in backward"),
    Site("backward", (ZIP,), "pack:duolora_core.baselines.zip_lora:ZippedLora.add", "in backward"),
    Site("optimiser", _MERGES, "pack:duolora_core.merge.losses:layer_prior_loss"),
    Site("optimiser", _TRAININGS, "torch.nn.utils:clip_grad_norm_"),
    Site("optimiser", _TRAININGS, "torch.optim:AdamW.step"),
    Site("optimiser", _TRAININGS, "torch.optim:AdamW.step", "after"),
    Site("preview", _TRAININGS, "pack:duolora_core.merge.trainer:block_statistics"),
    Site("preview", (OWN,), "pack:nodes.run.preview_sampling:sample"),
    Site("preview", (OWN,), "pack:nodes.host.preview:LatentPreview.__call__"),
    Site("preview", _TRAININGS, "pack:nodes.run.progress:training_preview"),
    Site("preview", _TRAININGS, "comfy.utils:ProgressBar.update_absolute"),
    Site("keep on disk", _TRAININGS, "pack:nodes.run.checkpoint:identity"),
    Site("keep on disk", _TRAININGS, "pack:nodes.run.checkpoint:Checkpointer.after"),
    Site("keep on disk", _TRAININGS, "pack:nodes.run.checkpoint:Checkpointer.finished"),
    # "before" would be to ask that a hook be gone whose removal has not begun.
    Site("detach", _TRAININGS, "torch.utils.hooks:RemovableHandle.remove", "after"),
    Site("report", _MERGES, "pack:nodes.run.merge:make_merged"),
    Site("report", _MERGES, "pack:nodes.merge:figures"),
    Site("report", (USE,), "pack:nodes.report:merge_report"),
    Site("fold", _MERGES, "pack:duolora_core.merge.merged:MergedLora.fold"),
    Site("fold", (ZIP,), "pack:duolora_core.baselines.zip_lora:ZippedLora.fold"),
    Site("fold", _MERGES, "pack:nodes.run.merge_result:kohya_state_dict"),
    Site("use", (USE,), "pack:duolora_core.merge.merged:MergedLora.fold"),
    Site("use", (USE,), "pack:nodes.run.merge_result:kohya_state_dict"),
    Site("use", (ZIP, USE), "comfy.lora:model_lora_keys_unet"),
    Site("use", (ZIP, USE), "comfy.sd:load_lora_for_models"),
    Site("use", (USE,), "pack:nodes.apply:combine"),
    Site("use", (USE,), "pack:nodes.adjust:scale_blocks"),
    Site("use", (USE,), "pack:nodes.adjust:strength_share"),
    Site("save", (USE,), "pack:nodes.save:save_numbered"),
    Site("save", (USE,), "pack:duolora_core.lora.save:safetensors_chunks"),
    Site("save", (USE,), "pack:duolora_core.files.atomic_write:_write"),
    Site("save", (USE,), "os:fsync"),
    Site("score", (SCORE,), "comfy.clip_vision:ClipVisionModel.encode_image"),
    Site("score", (SCORE,), "pack:nodes.score:text_embedding"),
    Site("score", (SCORE,), "pack:nodes.score:similarity"),
)

NON_FINITE = (
    Site("non-finite loss", _TRAININGS, "comfy.model_base:BaseModel.apply_model", "after", grad=True),
    Site("non-finite loss", (GIVEN, ZIP), "comfy.model_base:BaseModel.apply_model", "after", grad=False),
    Site("non-finite pictures", (OWN,), "comfy.sample:sample", "after"),
    Site("non-finite pictures", (GIVEN, ZIP), "comfy.sd:VAE.encode", "after"),
)
"""Where what a network puts out overflows instead; not in a live sample, which is worth no training."""

Kind = Literal["cancel", "interrupt", "error", "out of memory once", "out of memory", "non-finite"]
OVERFLOWS: tuple[Kind, ...] = ("non-finite",)
KINDS: tuple[Kind, ...] = ("cancel", "interrupt", "error", "out of memory once", "out of memory")
"""The button, pressed while the function runs; the host's exception for it; an ordinary exception; memory that is short
in one call, or in every call from then on; a network output that is infinite."""


def combinations(seed: int) -> list[tuple[Site, str, Kind]]:
    """Every site in each of its graphs with every kind, at random, but so that the stages take turns."""
    every: list[tuple[Site, str, Kind]] = [
        (site, graph, kind)
        for sites, kinds in ((SITES, KINDS), (NON_FINITE, OVERFLOWS))
        for site in sites
        for graph in site.graphs
        for kind in kinds
    ]
    random.Random(seed).shuffle(every)
    of_stage = Counter[str]()
    turns: list[int] = []
    for site, _, _ in every:
        turns.append(of_stage[site.stage])
        of_stage[site.stage] += 1
    return [each for _, each in sorted(zip(turns, every, strict=True), key=lambda pair: pair[0])]
