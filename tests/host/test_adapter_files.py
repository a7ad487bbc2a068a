"""LoRA files that are no plain LoRA, in real ComfyUI: what our nodes make of them paints what core's loader paints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, ours
from host.lora_samples import Layer, attention_linears, make_lora, text_layers
from host.merge_graphs import add_save, models_only
from host.narrow import narrowed
from host.test_baselines import add_painting, pictures

GLORA, PLAIN = "glora.safetensors", "plain_style.safetensors"
TOKENS = "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding"
NORM = "text_encoders.clip_g.transformer.text_model.encoder.layers.0.layer_norm1"


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", autouse=True)
def loras(server: ComfyServer, layers: list[Layer]) -> None:
    """A GLoRA, whose change needs the checkpoint's own weights, on attention and text encoders; with changes of token
    embeddings, of a norm and of biases of the text encoders. And a plain LoRA."""
    layers = narrowed(layers)
    named = {f"lora_unet_{each.ldm.replace('.', '_')}": each.shape for each in attention_linears(layers)}
    named |= {f"lora_{name.replace('.', '_')}": shape for name, shape in text_layers().items()}
    tensors: dict[str, Tensor] = {}
    for seed, (key, (out, inputs)) in enumerate(named.items()):
        parts = {"a1": (inputs, 3), "a2": (3, inputs), "b1": (out, 3), "b2": (3, inputs)}
        tensors |= {
            f"{key}.{part}.weight": noise(*shape, seed=4 * seed + place) * 0.4 / max(shape) ** 0.5
            for place, (part, shape) in enumerate(parts.items())
        }
        tensors[f"{key}.alpha"] = torch.tensor(3.0)
    tensors[f"{TOKENS}.diff"] = 0.3 * noise(49408, 2, seed=1) @ noise(2, 768, seed=2)
    tensors[f"{NORM}.diff"] = 0.2 * noise(1280, seed=3)
    tensors[f"{NORM.replace('layer_norm1', 'self_attn.q_proj')}.diff_b"] = 0.2 * noise(1280, seed=4)
    save_file(tensors, server.loras / GLORA)
    make_lora(server.loras / PLAIN, layers, rank=4, seed=5, te_layers=text_layers())


def loaders(graph: Graph, content: str = GLORA, **inputs: Any) -> Graph:
    graph["content"] = node("DuoLoRALoadContent", lora_name=content, prompt="a sks dog", strength=1.0, **inputs)
    graph["style"] = node("DuoLoRALoadStyle", lora_name=PLAIN, prompt="a painting", strength=1.0)
    return graph


def stacked(**inputs: Any) -> dict[str, Any]:
    links = {"model": ["checkpoint", 0], "content": ["content", 0], "style": ["style", 0]}
    return ours("BaselineMerge", **links, method="stack", **{"style_strength": 0.0} | inputs)


def test_what_needs_the_checkpoint_paints_as_in_cores_loader(server: ComfyServer, narrow: str) -> None:
    """But for the hundredth of each layer's energy that the plain LoRA may leave out."""
    graph = loaders(models_only(narrow), adapter_rank=64)
    graph["chain"] = node(
        "LoraLoader", model=["checkpoint", 0], clip=["clip", 0], lora_name=GLORA, strength_model=1.0, strength_clip=1.0
    )
    graph["stack"] = stacked(clip=["clip", 0])
    graph["bare"] = stacked(clip=["clip", 0], content_strength=0.0)
    for source in ("chain", "stack", "bare"):
        add_painting(graph, source)
    found = pictures(server, graph)
    off, changed = (float(np.abs(found["chain"] - found[each]).mean()) for each in ("stack", "bare"))
    assert changed > 5
    assert off < changed / 20


def test_a_text_part_that_needs_the_checkpoint_asks_for_clip(server: ComfyServer, narrow: str) -> None:
    graph = loaders(models_only(narrow)) | {"stack": stacked()}
    graph["show"] = node("PreviewAny", source=["stack", 4])
    with pytest.raises(GraphFailed, match="Connect the MODEL and CLIP") as caught:
        server.run(graph)
    assert "GLoRA" in str(caught.value)


def test_a_stack_gives_its_one_lora_with_both_strengths(server: ComfyServer, narrow: str) -> None:
    """(name, model strength, clip strength), as other packs hand it on."""
    graph = loaders(models_only(narrow), "(connected LORA_STACK)", lora_stack=["stacker", 0])
    graph["stacker"] = node("DuoLoRATestLoraStack", entries=f'[["None", 1, 1], ["{PLAIN}", 0.5, 0.25]]')
    graph["show"] = node("PreviewAny", source=["content", 1])
    graph["chain"] = node(
        "LoraLoader", model=["checkpoint", 0], clip=["clip", 0], lora_name=PLAIN, strength_model=0.5, strength_clip=0.25
    )
    graph["stack"] = stacked(clip=["clip", 0])
    for source in ("chain", "stack"):
        add_painting(graph, source)
    found = pictures(server, graph)
    assert int(np.abs(found["chain"] - found["stack"]).max()) <= 2


def test_save_tells_what_diffusers_refuses_and_leaves_it_out(server: ComfyServer, narrow: str) -> None:
    graph = loaders(models_only(narrow))
    links = {"model": ["checkpoint", 0], "clip": ["clip", 0], "content": ["content", 0], "style": ["style", 0]}
    graph["masks"] = ours("ZipRankMerge", **links, combined_prompt="a sks dog painting", steps=1, resolution=64)
    for name, only in (("whole", False), ("plain", True)):
        add_save(graph, ["masks", 0], f"for/{name}", name=name, for_diffusers=only)
    server.run(graph, 600)
    saved = {name: load_file(server.loras / f"for/{name}_00001.safetensors") for name in ("whole", "plain")}
    assert {f"{NORM}.diff", f"{TOKENS}.lora_up.weight"} <= saved["whole"].keys()
    assert saved["plain"].keys() < saved["whole"].keys()
    assert not [key for key in saved["plain"] if key.startswith("text_encoders.") or ".diff" in key]
