"""A merge applied to MODEL and CLIP."""

from __future__ import annotations

from typing import Any

from ...duolora_core.merge.merged import MergedLora
from ..host.models import apply_lora
from .merge_result import ordinary_lora


def patched(
    model: Any, clip: Any | None, merged: MergedLora, content_strength: float, style_strength: float
) -> tuple[Any, Any | None]:
    """MODEL and CLIP (None stays None) with a merge at these strengths; the inputs are not changed."""
    return apply_lora(model, clip, ordinary_lora(merged, content_strength, style_strength))
