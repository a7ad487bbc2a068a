"""The shapes world of the benchmarks as ComfyUI's own SDXL: MODEL, CLIP and VAE from one file of weights.

Nothing is shared with `benchmarks/` but the file and the tables of words, so that agreement between the two means
something.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH = 64
UNET_CONFIG: dict[str, Any] = {
    "image_size": 16,
    "use_spatial_transformer": True,
    "legacy": False,
    "num_classes": "sequential",
    "adm_in_channels": WIDTH + 6 * 256,
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 64,
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "transformer_depth_middle": 1,
    "channel_mult": [1, 1, 1],
    "use_linear_in_transformer": True,
    "context_dim": WIDTH,
}
LATENT_SCALE = 1.6
PIXELS = 4  # of the host's picture for one of the world's, so that a latent position is 8 pixels as in SDXL


class ShapesLatents(comfy.latent_formats.LatentFormat):
    """Twelve channels that the VAE has scaled already."""

    latent_channels = 12
    # A preview is the mean of the four pixels that a position holds, colour by colour.
    latent_rgb_factors = torch.eye(3).repeat_interleave(4, dim=0).div(4 * LATENT_SCALE).tolist()


class ShapesSDXL(comfy.supported_models.SDXL):
    """SDXL in every respect but its sizes, and predicting v."""

    latent_format = ShapesLatents
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}  # noqa: RUF012 (the host's own form)

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        """What the host reads from a checkpoint's keys."""
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        """More than four channels would mean an inpainting model to the host."""
        return False


def shapes_model(weights: dict[str, Tensor], disable_dynamic: bool = False) -> Any:
    """The MODEL, from all weights of the world."""
    return wrapped_model(ShapesSDXL(UNET_CONFIG), weights, disable_dynamic)


def wrapped_model(config: ShapesSDXL, weights: dict[str, Tensor], disable_dynamic: bool = False) -> Any:
    """A MODEL as the host wraps a checkpoint's: where it can stream weights, in a patcher that does."""
    config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model({}, device=offload)
    model.diffusion_model.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("unet.")})
    plain = comfy.model_patcher.ModelPatcher
    patcher = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    return patcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)


class WordTokenizer:
    """Finds the content word and the style word of a prompt; other words are passed over."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        contents, styles = tokenizer_data["contents"], tokenizer_data["styles"]
        self.contents = {word: row for row, word in enumerate(contents)}
        self.styles = {word: len(contents) + row for row, word in enumerate(styles)}
        self.missing = len(contents) + len(styles)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list[list[int]]]:
        """One chunk of two rows of the embedding: a content's, then a style's; the missing word's for none."""
        words = re.findall(r"\w+", text)
        content = [self.contents[word] for word in words if word in self.contents] or [self.missing]
        style = [self.styles[word] for word in words if word in self.styles] or [self.missing + 1]
        if len(content) > 1 or len(style) > 1:
            raise ValueError(f"'{text}' names more than one content or style")
        return {"words": [content + style]}


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


def shapes_clip(weights: dict[str, Tensor], contents: list[str], styles: list[str]) -> Any:
    """The CLIP, from all weights of the world and its words."""
    return word_clip(weights, WordTokenizer, {"contents": contents, "styles": styles})


def word_clip(weights: dict[str, Tensor], tokenizer: type, tables: dict[str, list[str]]) -> Any:
    """A CLIP in the host's own class, whose tokenizer reads rows of the embedding from tables of words."""
    table = weights["text.words.weight"]
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(tokenizer, WordEncoder),
        tokenizer_data=tables,
        parameters=table.numel(),
        model_options={"words": len(table), "width": table.shape[1], "dtype": torch.float32},
    )
    clip.cond_stage_model.load_state_dict({"words.weight": table})
    return clip


class ShapesVAE:
    """What the nodes use of a VAE: space to depth, at a quarter of the picture's size."""

    def __init__(self) -> None:
        cpu = torch.device("cpu")
        self.patcher = comfy.model_patcher.ModelPatcher(nn.Identity(), cpu, cpu)  # it has no weights to tell it by

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, h, w, 3) in [0, 1] → (n, 12, h / 8, w / 8)."""
        small = F.avg_pool2d(pixels[..., :3].movedim(-1, 1) * 2 - 1, PIXELS)
        return F.pixel_unshuffle(small, 2) * LATENT_SCALE

    def decode(self, latents: Tensor) -> Tensor:
        """(n, 12, h, w) → (n, 8 h, 8 w, 3) in [0, 1]."""
        small = F.pixel_shuffle(latents / LATENT_SCALE, 2).clamp(-1, 1)
        return F.interpolate(small / 2 + 0.5, scale_factor=PIXELS, mode="nearest").movedim(1, -1)


class ShapesWorld(io.ComfyNode):
    """Loads the world."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A file and the words that its embeddings stand for, in their order."""
        return io.Schema(
            node_id="DuoLoRATestShapesWorld",
            display_name="Shapes World (test)",
            category="DuoLoRA/test",
            inputs=[io.String.Input("weights"), io.String.Input("contents"), io.String.Input("styles")],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, weights: str, contents: str, styles: str) -> io.NodeOutput:
        """Read the file and build all three."""
        held = {key: value.float() for key, value in load_file(Path(weights)).items()}
        return io.NodeOutput(shapes_model(held), shapes_clip(held, contents.split(), styles.split()), ShapesVAE())
