"""Pictures that come in from other nodes: checked once, before they cost anything."""

from __future__ import annotations

from torch import Tensor

from ..errors import SettingsError

LONGEST_SHAPE = 16
"""Longer side over shorter side. SDXL was trained up to 4; a line of pixels would be scaled up to a huge picture."""


def check_pictures(batch: Tensor, name: str) -> None:
    """Passes an IMAGE batch (count, h, w, 3 or 4) of finite numbers.

    Args:
        name: of the input, for the message

    Raises:
        SettingsError: it is no such batch, empty, not finite, or a picture is far longer than wide.
    """
    shape = tuple(batch.shape)
    if batch.ndim != 4 or 0 in shape or shape[-1] not in (3, 4) or not batch.is_floating_point():
        raise SettingsError(
            f"{name} is not a batch of colour pictures (shape {shape}, {batch.dtype}): connect the IMAGE of a Load "
            "Image node, at least one picture with red, green and blue."
        )
    sides = shape[1:3]
    if max(sides) > LONGEST_SHAPE * min(sides):
        raise SettingsError(f"{name} has pictures of {sides[1]} x {sides[0]} pixels. Crop them, best to a square.")
    if not bool(batch.isfinite().all()):
        raise SettingsError(f"{name} has pixels that are NaN or infinite. Look at the node that made them.")
