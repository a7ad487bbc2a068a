"""Pictures and prompts as embeddings, by the CLIP_VISION and CLIP models that the artist has loaded."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...duolora_core.errors import ModelMismatchError

VisionKind = Literal["CLIP", "DINO"]
_AT_ONCE = 8


def vision_kind(vision: Any) -> VisionKind:
    """What a CLIP_VISION model is.

    Raises:
        ModelMismatchError: it gives no single embedding for a picture, as SigLIP in ComfyUI.
    """
    if type(vision.model).__name__.lower().startswith("dino"):
        return "DINO"
    if isinstance(getattr(vision.model, "visual_projection", None), nn.Linear):
        return "CLIP"
    raise ModelMismatchError(
        f"This CLIP_VISION model ({type(vision.model).__name__} without a projection, perhaps SigLIP) gives no "
        "embedding for a whole picture. Load a CLIP vision model (ViT-L, ViT-H, ViT-bigG) or a DINOv2."
    )


def picture_embeddings(vision: Any, pictures: Tensor) -> Tensor:
    """(count, d) float32 embeddings of an IMAGE batch (count, h, w, 3), each picture cropped to its central square."""
    parts = [vision.encode_image(batch)["image_embeds"] for batch in pictures[..., :3].split(_AT_ONCE)]
    return torch.cat(parts).to("cpu", torch.float32)


def text_embedding(clip: Any, prompt: str, vision: Any) -> Tensor | str:
    """(1, d) of a prompt in the space of a vision model; or, where the two share no space, the reason why not.

    SDXL's pooled text is that of CLIP ViT-bigG after its text projection, so it is comparable with that vision model's
    embeddings; a projection that is missing in a checkpoint is left the identity by the host, and compares with none.
    """
    if vision_kind(vision) != "CLIP":
        return "a DINO model knows no text"
    pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)[1]
    size = vision.model.visual_projection.weight.shape[0]
    encoder = getattr(clip.cond_stage_model, "clip_g", None) or getattr(clip.cond_stage_model, "clip_l", None)
    projection = getattr(getattr(encoder, "transformer", None), "text_projection", None)
    if pooled is None or projection is None or pooled.shape[-1] != projection.weight.shape[0]:
        return "this CLIP gives no projected text"
    if pooled.shape[-1] != size:
        return (
            f"this CLIP's text has {pooled.shape[-1]} numbers and the vision model's pictures {size}, so they are not "
            "of one model; SDXL's text goes with CLIP-ViT-bigG (1280)"
        )
    weight = projection.weight.detach().to("cpu", torch.float32)
    if torch.equal(weight, torch.eye(len(weight))):
        return "this CLIP was loaded without its text projection"
    return pooled.to("cpu", torch.float32)
