"""The art world of the benchmarks as ComfyUI's own SDXL: MODEL, CLIP and VAE from one file of weights.

Nothing is shared with `benchmarks/` but the file and the tables of words, so that agreement between the two means
something.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_patcher
import comfy.model_sampling
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from safetensors.torch import load_file
from torch import Tensor, nn

from .shapes_world import ShapesSDXL, word_clip, wrapped_model

WIDTH = 96
UNET_CONFIG: dict[str, Any] = {
    "image_size": 16,
    "use_spatial_transformer": True,
    "legacy": False,
    "num_classes": "sequential",
    "adm_in_channels": WIDTH + 6 * 256,
    "in_channels": 48,
    "out_channels": 48,
    "model_channels": 96,
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 2, 2],
    "transformer_depth_output": [0, 0, 2, 2, 2, 2],
    "transformer_depth_middle": 2,
    "channel_mult": [1, 1, 1],
    "use_linear_in_transformer": True,
    "context_dim": WIDTH,
}
LATENT_SCALE = 1.6
PIXELS = 2  # of the host's picture for one of the world's, so that a latent position is 8 pixels as in SDXL


class ArtLatents(comfy.latent_formats.LatentFormat):
    """Forty-eight channels that the VAE has scaled already."""

    latent_channels = 48
    # A preview is the mean of the sixteen pixels that a position holds, colour by colour.
    latent_rgb_factors = torch.eye(3).repeat_interleave(16, dim=0).div(16 * LATENT_SCALE).tolist()


class ArtSDXL(ShapesSDXL):
    """SDXL in every respect but its sizes, and what it predicts."""

    latent_format = ArtLatents


class PictureSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """SDXL's noise levels, scaled inputs, and a network that puts out the picture itself."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The estimate of x0."""
        return model_output


def art_model(weights: dict[str, Tensor], disable_dynamic: bool = False) -> Any:
    """The MODEL, from all weights of the world."""
    config = ArtSDXL(UNET_CONFIG)
    patcher = wrapped_model(config, weights, disable_dynamic)
    patcher.model.model_sampling = PictureSampling(config)
    return patcher


class ArtTokenizer:
    """Finds the subject, the style and the background of a prompt; other words are passed over."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        self.kinds: list[dict[str, int]] = []
        first = 0
        for kind in ("contents", "styles", "backgrounds"):
            table = tokenizer_data[kind]
            self.kinds.append({word: first + row for row, word in enumerate(table)})
            first += len(table)
        self.missing = first

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list[list[int]]]:
        """One chunk of three rows of the embedding, the kind's missing word for none."""
        words = re.findall(r"\w+", text)
        rows = [[table[word] for word in words if word in table] for table in self.kinds]
        if any(len(found) > 1 for found in rows):
            raise ValueError(f"'{text}' names more than one subject, style or background")
        return {"words": [[found[0] if found else self.missing + kind for kind, found in enumerate(rows)]]}


class ArtVAE:
    """What the nodes use of a VAE: space to depth, at half of the picture's size."""

    def __init__(self) -> None:
        cpu = torch.device("cpu")
        self.patcher = comfy.model_patcher.ModelPatcher(nn.Identity(), cpu, cpu)  # it has no weights to tell it by

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, h, w, 3) in [0, 1] → (n, 48, h / 8, w / 8)."""
        small = F.avg_pool2d(pixels[..., :3].movedim(-1, 1) * 2 - 1, PIXELS)
        return F.pixel_unshuffle(small, 4) * LATENT_SCALE

    def decode(self, latents: Tensor) -> Tensor:
        """(n, 48, h, w) → (n, 8 h, 8 w, 3) in [0, 1]."""
        small = F.pixel_shuffle(latents / LATENT_SCALE, 4).clamp(-1, 1)
        return F.interpolate(small / 2 + 0.5, scale_factor=PIXELS, mode="nearest").movedim(1, -1)


class ArtWorld(io.ComfyNode):
    """Loads the world."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A file and the words that its embeddings stand for, in their order."""
        words = [io.String.Input(name) for name in ("contents", "styles", "backgrounds")]
        return io.Schema(
            node_id="DuoLoRATestArtWorld",
            display_name="Art World (test)",
            category="DuoLoRA/test",
            inputs=[io.String.Input("weights"), *words],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, weights: str, contents: str, styles: str, backgrounds: str) -> io.NodeOutput:
        """Read the file and build all three."""
        held = {key: value.float() for key, value in load_file(Path(weights)).items()}
        words = {"contents": contents.split(), "styles": styles.split(), "backgrounds": backgrounds.split()}
        return io.NodeOutput(art_model(held), word_clip(held, ArtTokenizer, words), ArtVAE())
