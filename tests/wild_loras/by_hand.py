"""What other programs write, in their spelling: ai-toolkit, OneTrainer, ComfyUI's own extraction, early LyCORIS.

Each layer is a plain LoRA or a difference with a slow formula in float64; what is odd is where its parts are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wild_loras.layers import ATTENTION, NORM, TEXT, TEXT_NORM, TOKENS, Family, generic, placed_name
from wild_loras.sample import Sample, written

RANK = 4
Q = ATTENTION[0]


@dataclass
class Contents:
    """A file as it grows, and what it changes."""

    family: Family
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    changes: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    offsets: dict[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def noise(self, *shape: int, scale: float = 0.05) -> Tensor:
        seed = len(self.tensors) + 7 * len(self.changes)
        return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def lora(
        self, layer: str, key: str, up: str = ".lora_up.weight", down: str = ".lora_down.weight", scale: float = 1.0
    ) -> None:
        """A plain LoRA of a layer."""
        weight = self.family.weights[placed_name(layer)]
        a, b = self.noise(weight.shape[0], RANK), self.noise(RANK, weight[0].numel(), scale=0.06)
        self.tensors |= {key + up: a, key + down: b}
        self.changes[placed_name(layer)] = scale * (a.double() @ b.double()).reshape(weight.shape)


def unet(contents: Contents, layers: tuple[str, ...] = ATTENTION) -> None:
    """The usual part beside what is odd."""
    for layer in layers:
        contents.lora(layer, "lora_unet_" + layer.replace(".", "_"))


def nothing_says_alpha(it: Contents) -> None:
    unet(it)
    it.metadata["ss_network_alpha"] = "16"


def ai_toolkit_dora(it: Contents) -> None:
    for layer in ATTENTION:
        key = f"diffusion_model.{layer}"
        it.lora(layer, key, ".lora_B.weight", ".lora_A.weight")
        weight = it.family.weights[layer].double()
        merged = weight + it.changes[layer]
        magnitude = (weight.norm(dim=1) * (1 + it.noise(len(weight)))).float()
        it.tensors[f"{key}.magnitude"] = magnitude
        it.changes[layer] = merged * (magnitude.double() / merged.norm(dim=1))[:, None] - weight


def compiled(it: Contents) -> None:
    for layer in ATTENTION:
        it.lora(layer, f"unet._orig_mod.{it.family.diffusers(layer)}", ".lora_B.weight", ".lora_A.weight")


def text(
    spell: Callable[[str], str], up: str = ".lora_up.weight", down: str = ".lora_down.weight"
) -> Callable[[Contents], None]:
    def fill(it: Contents) -> None:
        unet(it, ATTENTION[:1])
        for layer in TEXT:
            it.lora(layer, spell(layer), up, down)

    return fill


def _without_text_model(name: str) -> str:
    encoder, _, layer = name.replace("text_model.", "").partition(".")
    return f"{'text_encoder' if encoder == 'te1' else 'text_encoder_2'}.{layer}"


TEXT_SPELLINGS: Mapping[str, tuple[Callable[[Contents], None], bool | str]] = {
    "kohya": (text(lambda n: "lora_" + n.replace(".", "_")), True),
    "comfy": (text(generic), True),
    "transformers_5_6": (text(_without_text_model, ".lora_B.weight", ".lora_A.weight"), "core knows no such text key"),
    "onetrainer": (
        text(lambda n: "lora_" + n.replace("text_model.", "").replace(".", "_")),
        "core knows no such text key",
    ),
    "clip_l": (
        text(lambda n: generic(n).removeprefix("text_encoders.").replace(".transformer", "")),
        "core knows no such text key",
    ),
}


def extracted(it: Contents) -> None:
    """Core's Extract and Save LoRA: differences of token embeddings, of biases and norms, of text biases."""
    for layer in ATTENTION[:2]:
        it.lora(layer, f"diffusion_model.{layer}")
    it.tensors[f"diffusion_model.{NORM}.diff"] = it.offsets[NORM, "weight"] = it.noise(640)
    it.tensors[f"diffusion_model.{ATTENTION[2]}.diff_b"] = it.offsets[ATTENTION[2], "bias"] = it.noise(1280)
    tokens = it.noise(1000, 3) @ it.noise(3, 768)
    it.tensors[f"{generic(TOKENS)}.diff"] = it.changes[generic(TOKENS)] = tokens
    first = next(iter(TEXT))
    it.tensors[f"{generic(first)}.diff_b"] = it.offsets[placed_name(first), "bias"] = it.noise(768)
    it.tensors[f"{generic(TEXT_NORM)}.diff"] = it.offsets[generic(TEXT_NORM), "weight"] = it.noise(1280)


def norms(it: Contents) -> None:
    """LyCORIS' train_norm."""
    unet(it)
    key = "lora_unet_" + NORM.replace(".", "_")
    it.tensors[f"{key}.w_norm"] = it.offsets[NORM, "weight"] = it.noise(640)
    it.tensors[f"{key}.b_norm"] = it.offsets[NORM, "bias"] = it.noise(640)


def new_weight(it: Contents) -> None:
    for layer in ATTENTION[:2]:
        weight = it.family.weights[layer]
        whole = weight + it.noise(weight.shape[0], 2) @ it.noise(2, weight.shape[1])
        it.tensors[f"diffusion_model.{layer}.set_weight"] = whole
        it.changes[layer] = whole.double() - weight.double()


def bound_oft(it: Contents) -> None:
    """An OFT whose rotation is shrunk to its bound, by the formula."""
    for layer in ATTENTION:
        weight = it.family.weights[layer].double()
        blocks = it.noise(len(weight) // 8, 8, 8)
        key = "lora_unet_" + layer.replace(".", "_")
        it.tensors |= {f"{key}.oft_blocks": blocks, f"{key}.alpha": torch.tensor(0.5)}
        q = (blocks - blocks.transpose(1, 2)).double()
        q *= 0.5 / (q.norm() + 1e-8)
        one = torch.eye(8, dtype=torch.float64)
        turned = [
            ((one + each) @ torch.linalg.inv(one - each)).T @ part
            for each, part in zip(q, weight.split(8), strict=True)
        ]
        it.changes[layer] = torch.cat(turned) - weight


def old_glora(it: Contents) -> None:
    """LyCORIS 1 called the narrow factor first."""
    for layer in ATTENTION:
        weight = it.family.weights[layer]
        out, inputs = weight.shape
        a1, a2 = it.noise(RANK, inputs), it.noise(inputs, RANK)
        b1, b2 = it.noise(RANK, inputs, scale=0.04), it.noise(out, RANK)
        key = "lora_unet_" + layer.replace(".", "_")
        named = {"a1": a1, "a2": a2, "b1": b1, "b2": b2}
        it.tensors |= {f"{key}.{part}.weight": value for part, value in named.items()}
        it.tensors[f"{key}.alpha"] = torch.tensor(2.0)
        a1, a2, b1, b2 = (each.double() for each in named.values())
        it.changes[layer] = 2.0 / RANK * (weight.double() @ a2 @ a1 + b2 @ b1)


def bundled(it: Contents) -> None:
    """OneTrainer and A1111: an embedding in the LoRA's file."""
    unet(it)
    it.tensors["bundle_emb.sks-dog.clip_l"] = it.noise(2, 768)
    it.tensors["bundle_emb.sks-dog.clip_g"] = it.noise(2, 1280)


def metadata_of_one_component(it: Contents) -> None:
    """diffusers' metadata for the text encoder alone; the UNet's part has alpha keys."""
    unet(it)
    for layer in ATTENTION:
        it.tensors[f"lora_unet_{layer.replace('.', '_')}.alpha"] = torch.tensor(1.0)
        it.changes[layer] = it.changes[layer] / RANK
    first = next(iter(TEXT))
    it.lora(first, _without_text_model(first).replace("encoder.layers", "text_model.encoder.layers"), scale=8 / RANK)
    settings = {"text_encoder.r": RANK, "text_encoder.lora_alpha": 8}
    it.metadata["lora_adapter_metadata"] = json.dumps(settings)


FILES: Mapping[str, tuple[str, Callable[[Contents], None], bool | str]] = {
    "nothing_says_alpha": ("no alpha anywhere", nothing_says_alpha, True),
    "ai_toolkit_dora": ("ai-toolkit DoRA", ai_toolkit_dora, "core takes it for a plain LoRA"),
    "compiled": ("compiled names", compiled, "core knows no such key"),
    "extracted": ("core's extraction", extracted, True),
    "norms": ("1-D changes", norms, True),
    "new_weight": ("new weights", new_weight, True),
    "bound_oft": ("OFT", bound_oft, True),
    "old_glora": ("GLoRA", old_glora, True),
    "bundled": ("bundled embedding", bundled, True),
    "metadata_text": ("diffusers metadata", metadata_of_one_component, "core reads no alpha from metadata"),
    **{f"text_{name}": ("text spellings", fill, in_core) for name, (fill, in_core) in TEXT_SPELLINGS.items()},
}


def samples(family: Family, folder: Path) -> Iterator[Sample]:
    for name, (kind, fill, in_core) in FILES.items():
        it = Contents(family)
        fill(it)
        path = written(folder / name / f"{name}.safetensors", it.tensors, it.metadata)
        yield Sample(kind, family, path, it.changes, it.offsets, in_core)
