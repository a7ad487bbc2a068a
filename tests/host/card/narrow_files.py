"""Lets the host's own loaders read the narrow model, whose width its detection does not know."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.supported_models

WIDE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures_pack" / "unet.json").read_bytes())
CONFIG = WIDE | {"model_channels": 64, "num_head_channels": 32}


def accept_narrow_checkpoints() -> None:
    """Puts a detection that knows them in front of the host's own."""
    detect = comfy.model_detection.model_config_from_unet

    @functools.wraps(detect)
    def model_config(state: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> Any:
        first = state.get(f"{prefix}input_blocks.0.0.weight")
        if first is None or first.shape[0] != CONFIG["model_channels"]:
            return detect(state, prefix, *args, **kwargs)
        config = comfy.supported_models.SDXL(CONFIG)
        config.unet_config["num_head_channels"] = CONFIG["num_head_channels"]  # the class sets SDXL's own
        return config

    comfy.model_detection.model_config_from_unet = model_config
