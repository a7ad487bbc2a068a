"""Lets core's Load Checkpoint open the shapes world, so that a graph runs as an artist saved it, no node exchanged.

A checkpoint of the world is its weights with the words of its embeddings in the metadata: {"contents", "styles"}.
"""

from __future__ import annotations

import functools
from typing import Any

import comfy.sd
from safetensors import safe_open

from .worlds import WORLDS, WorldVAE, read_world, world_clip, world_model


def accept_world_checkpoints() -> None:
    """Puts a loader that knows them in front of the host's own."""
    load = comfy.sd.load_checkpoint_guess_config

    @functools.wraps(load)
    def load_checkpoint(ckpt_path: str, *args: Any, **kwargs: Any) -> Any:
        words = _words(ckpt_path)
        if words is None:
            return load(ckpt_path, *args, **kwargs)
        held, world = read_world(ckpt_path), WORLDS["shapes"]
        model = world_model(world, held, kwargs.get("disable_dynamic", False))
        # With this a present host makes itself a plain copy of a model that it otherwise streams, to train a LoRA.
        model.cached_patcher_init = (load_checkpoint, (ckpt_path,), 0)
        return model, world_clip(held, words), WorldVAE(world), None

    comfy.sd.load_checkpoint_guess_config = load_checkpoint


def _words(path: str) -> tuple[list[str], list[str]] | None:
    if not path.endswith(".safetensors"):
        return None
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    if "contents" not in metadata:
        return None
    return metadata["contents"].split(), metadata["styles"].split()
