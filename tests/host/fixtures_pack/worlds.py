"""The worlds of the benchmarks as ComfyUI's own SDXL: MODEL, CLIP and VAE from one file of weights.

Nothing is shared with `benchmarks/` but the file and the tables of words, so that agreement between the two means
something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from safetensors.torch import load_file
from torch import Tensor, nn

LATENT_SCALE = 1.6


@dataclass(frozen=True)
class World:
    """What the worlds differ by.

    Attributes:
        width: of the UNet and of a word's embedding
        patch: pixels of the world's picture, each way, that a latent position holds; in the host it has 8, as in SDXL
        unet: its depths, in the host's own names
        predicts_picture: the network puts out the picture itself instead of v
    """

    width: int
    patch: int
    unet: Mapping[str, Any]
    predicts_picture: bool = False

    @property
    def pixels(self) -> int:
        """Of the host's picture for one of the world's."""
        return 8 // self.patch


WORLDS = {
    "shapes": World(
        64,
        2,
        {
            "num_res_blocks": [2, 2, 2],
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": 1,
        },
    ),
    "art": World(
        96,
        4,
        {
            "num_res_blocks": [1, 1, 1],
            "transformer_depth": [0, 2, 2],
            "transformer_depth_output": [0, 0, 2, 2, 2, 2],
            "transformer_depth_middle": 2,
        },
        predicts_picture=True,
    ),
}


class WorldSDXL(comfy.supported_models.SDXL):
    """SDXL in every respect but its sizes, and predicting v."""

    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}  # noqa: RUF012 (the host's own form)

    def __init__(self, world: World) -> None:
        area = world.patch**2

        class Latents(comfy.latent_formats.LatentFormat):
            """Channels that the VAE has scaled already; a preview is the mean of a position's pixels, by colour."""

            latent_channels = 3 * area
            latent_rgb_factors = torch.eye(3).repeat_interleave(area, dim=0).div(area * LATENT_SCALE).tolist()

        self.latent_format = Latents
        sizes = {
            "image_size": 16,
            "use_spatial_transformer": True,
            "legacy": False,
            "num_classes": "sequential",
            "adm_in_channels": world.width + 6 * 256,
            "in_channels": 3 * area,
            "out_channels": 3 * area,
            "model_channels": world.width,
            "channel_mult": [1, 1, 1],
            "use_linear_in_transformer": True,
            "context_dim": world.width,
        }
        super().__init__({**sizes, **world.unet})

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        """What the host reads from a checkpoint's keys."""
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        """More than four channels would mean an inpainting model to the host."""
        return False


class PictureSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """SDXL's noise levels, scaled inputs, and a network that puts out the picture itself."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The estimate of x0."""
        return model_output


def world_model(world: World, weights: Mapping[str, Tensor], disable_dynamic: bool = False) -> Any:
    """A MODEL as the host wraps a checkpoint's: where it can stream weights, in a patcher that does."""
    config = WorldSDXL(world)
    config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model({}, device=offload)
    model.diffusion_model.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("unet.")})
    if world.predicts_picture:
        model.model_sampling = PictureSampling(config)
    plain = comfy.model_patcher.ModelPatcher
    patcher = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    return patcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)


class WordTokenizer:
    """Finds one word of each table in a prompt; other words are passed over."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        self.tables: list[dict[str, int]] = []
        first = 0
        for table in tokenizer_data["tables"]:
            self.tables.append({word: first + row for row, word in enumerate(table)})
            first += len(table)
        self.missing = first

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list[list[int]]]:
        """One chunk of a row of the embedding for each table, its missing word's for none."""
        words = re.findall(r"\w+", text)
        rows = [[table[word] for word in words if word in table] for table in self.tables]
        if any(len(found) > 1 for found in rows):
            raise ValueError(f"'{text}' names more than one content, style or background")
        return {"words": [[found[0] if found else self.missing + kind for kind, found in enumerate(rows)]]}


class WordEncoder(nn.Module):
    """One embedding per word, in the form in which the host holds text encoders."""

    def __init__(self, dtype: torch.dtype, device: Any, model_options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(model_options["words"], model_options["width"], dtype=dtype, device=device)
        self.dtypes = {dtype}

    def reset_clip_options(self) -> None:
        """There are no layers to stop at."""

    def set_clip_options(self, options: Any) -> None:
        """As above."""

    def encode_token_weights(self, tokens: dict[str, list[list[int]]]) -> tuple[Tensor, Tensor]:
        """(1, tokens, width) states and (1, width) pooled."""
        weight = self.words.weight
        states = weight[torch.tensor(tokens["words"], device=weight.device)]
        return states, states.mean(dim=1)


def world_clip(weights: Mapping[str, Tensor], tables: Sequence[Sequence[str]]) -> Any:
    """A CLIP in the host's own class, whose tokenizer reads rows of the embedding from tables of words."""
    held = weights["text.words.weight"]
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(WordTokenizer, WordEncoder),
        tokenizer_data={"tables": tables},
        parameters=held.numel(),
        model_options={"words": len(held), "width": held.shape[1], "dtype": torch.float32},
    )
    clip.cond_stage_model.load_state_dict({"words.weight": held})
    return clip


class WorldVAE:
    """What the nodes use of a VAE: space to depth, at a part of the picture's size."""

    def __init__(self, world: World) -> None:
        cpu = torch.device("cpu")
        self.world = world
        self.patcher = comfy.model_patcher.ModelPatcher(nn.Identity(), cpu, cpu)  # it has no weights to tell it by

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, h, w, 3) in [0, 1] → (n, channels, h / 8, w / 8)."""
        small = F.avg_pool2d(pixels[..., :3].movedim(-1, 1) * 2 - 1, self.world.pixels)
        return F.pixel_unshuffle(small, self.world.patch) * LATENT_SCALE

    def decode(self, latents: Tensor) -> Tensor:
        """(n, channels, h, w) → (n, 8 h, 8 w, 3) in [0, 1]."""
        small = F.pixel_shuffle(latents / LATENT_SCALE, self.world.patch).clamp(-1, 1)
        return F.interpolate(small / 2 + 0.5, scale_factor=self.world.pixels, mode="nearest").movedim(1, -1)


def read_world(path: str) -> dict[str, Tensor]:
    """All weights of a world, in float32."""
    return {key: value.float() for key, value in load_file(Path(path)).items()}


class LoadWorld(io.ComfyNode):
    """Loads a world."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A file and the words that its embeddings stand for, in their order: a JSON list of tables."""
        return io.Schema(
            node_id="DuoLoRATestWorld",
            display_name="World (test)",
            category="DuoLoRA/test",
            inputs=[
                io.Combo.Input("world", options=list(WORLDS)),
                io.String.Input("weights"),
                io.String.Input("words"),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, world: str, weights: str, words: str) -> io.NodeOutput:
        """Read the file and build all three."""
        chosen, held = WORLDS[world], read_world(weights)
        return io.NodeOutput(world_model(chosen, held), world_clip(held, json.loads(words)), WorldVAE(chosen))
