"""IMAGE batches as Pillow pictures, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def as_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """(count, h, w, 3) in [0, 1] of RGB pictures of one size."""
    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0 for picture in pictures]
    return torch.from_numpy(np.stack(arrays))


def as_pictures(batch: Tensor) -> list[Image.Image]:
    """One RGB picture for each of a batch (count, h, w, 3 or 4) in [0, 1]; an alpha channel is left out."""
    levels = (batch[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(picture) for picture in levels]
