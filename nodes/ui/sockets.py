"""What travels between our nodes, and the socket types that carry it."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "DuoLoRA"

ConceptSocket = io.Custom("DUOLORA_CONCEPT")
OptionsSocket = io.Custom("DUOLORA_OPTIONS")
TrainOptionsSocket = io.Custom("DUOLORA_TRAIN_OPTIONS")
MergedSocket = io.Custom("DUOLORA_MERGED")
LoraModelSocket = io.Custom("LORA_MODEL")
LossMapSocket = io.Custom("LOSS_MAP")
LoraStackSocket = io.Custom("LORA_STACK")
