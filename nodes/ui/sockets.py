"""What travels between our nodes, and the socket types that carry it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from comfy_api.latest import io
from torch import Tensor

from ...duolora_core.lora.save import kohya_state_dict
from ...duolora_core.merge.merged import MergedLora

CATEGORY = "DuoLoRA"

ConceptSocket = io.Custom("DUOLORA_CONCEPT")
OptionsSocket = io.Custom("DUOLORA_OPTIONS")
TrainOptionsSocket = io.Custom("DUOLORA_TRAIN_OPTIONS")
MergedSocket = io.Custom("DUOLORA_MERGED")
LoraModelSocket = io.Custom("LORA_MODEL")
LossMapSocket = io.Custom("LOSS_MAP")


def ordinary_lora(merged: MergedLora, content_strength: float, style_strength: float) -> Mapping[str, Tensor]:
    """A merge at these strengths as the state dict of an ordinary LoRA, in fp16.

    Raises:
        LoraFileError: a value is too large for fp16.
    """
    with torch.inference_mode(False):
        return kohya_state_dict(merged.fold(content_strength, style_strength))
