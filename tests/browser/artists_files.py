"""The files that the workflows name, so that each runs as it was saved: checkpoint, LoRAs, pictures, an earlier merge."""

from __future__ import annotations

import shutil

import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes_world.concepts import concept_pictures, lora_path
from benchmarks.shapes_world.model import decode_latent
from benchmarks.shapes_world.names import CONTENTS, STYLES
from benchmarks.shapes_world.render import as_image
from browser.world_server import add_checkpoint
from host.comfy_host import ComfyServer
from workflow_files import api_graph, workflows
from workflow_on_small_model import CHECKPOINT, CONCEPTS, SIDE, Kind, on_small_model, picture_names

PICTURES = 4


def add_artists_files(server: ComfyServer, steps: int) -> None:
    """All of them. A merge of this many steps and its masks come from the workflow that saves both."""
    add_checkpoint(server, CHECKPOINT)
    for concept in CONCEPTS:
        table = CONTENTS if concept.kind == "content" else STYLES
        label = [entry.name for entry in table].index(concept.word)
        path = lora_path(concept.kind, label)
        shutil.copyfile(path, server.loras / concept.file)
        _add_pictures(server, concept.kind, decode_latent(concept_pictures(concept.kind, label).latents))
    (saves_both,) = (each for each in workflows() if each.name.startswith("02_"))
    server.run(on_small_model(api_graph(saves_both), steps=steps), timeout=600)
    saved = {path.name for path in (server.loras / "duolora").iterdir()}
    assert saved == {"merged_00001.safetensors", "merged_00001.masks.safetensors"}


def _add_pictures(server: ComfyServer, kind: Kind, pictures: Tensor) -> None:
    """Of the first subject that a kind has, and the host's own example."""
    folder = server.base / "input"
    for name, picture in zip(picture_names(kind, PICTURES), pictures, strict=False):
        if not (folder / name).exists():
            as_image(F.interpolate(picture[None], scale_factor=SIDE // picture.shape[-1])[0]).save(folder / name)
