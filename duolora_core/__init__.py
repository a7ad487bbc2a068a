"""DuoLoRA: merge a content LoRA and a style LoRA of the SDXL family into one that keeps both (arXiv 2504.13206).

The story, in the order of the calls:

    content = place(read_lora(path), layout)            # any format in, LowRank layers out
    pair = make_pair(content, style, layout)            # stacked, each in its SVD basis
    roles = layer_roles(layout, "resolution")           # which blocks carry content, which style
    gates = starting_gates(pair, roles, config)         # the masks, one number per rank component
    with attach(denoiser.modules, pair, gates) as gated:
        for report in train(denoiser, gated, content_pictures, style_pictures, roles, config):
            ...                                         # the caller owns progress, preview and interrupt
    merged = make_merged(pair, gates)                   # roles kept: strengths stay adjustable
    tensors = kohya_state_dict(merged.fold(0.9, 1.1))   # an ordinary LoRA

Pure PyTorch: it knows no host. What it needs of a diffusion model is the `Denoiser` protocol.

The files in reading order:

- what a LoRA is: `low_rank`, `unet_layout`, `lora_keys`, `architecture`, `each_layer`, `lora_file`, `concept`, `pair`
- what it learns from: `picture_batch`
- what trains: `layer_priors`, `gates`, `layer_hooks`, `frozen_layer`, `stacked`, `gated_lora`, `denoiser`, `losses`,
  `config`, `evaluation`, `loss_scale`, `lessons`, `training_state`, `trainer`
- what is seen meanwhile: `sampling`
- what comes out: `merged`, `dials`, `lora_save`, `masks_file`
- how it goes on after a stop: `kept_training`, `unfinished`
- what it says: `layer_kinds`, `overlap`, `scores`

and, each a folder with a reading order of its own:

- `files`: what a stranger's file is believed to say, and files that are there whole or not at all
- `memory`: what a training needs, and how it is made to need less
- `baselines`: what others do with the same pair
- `report`: words and pictures; not imported here
- `from_pictures`: where LoRAs come from
"""

from .concept import Concept, place
from .config import PRESETS, MergeConfig
from .denoiser import Denoiser
from .errors import DuoLoraError
from .gated_lora import attach
from .gates import Gates, initial_gates, open_gates
from .layer_priors import layer_roles
from .lessons import Picture
from .lora_file import LoraFile, lora_from_tensors, read_lora
from .lora_save import kohya_state_dict
from .low_rank import LowRank
from .merged import MergedLora, combine, make_merged
from .pair import LoraPair, make_pair
from .trainer import StepReport, starting_gates, train
from .unet_layout import UNetLayout, layout_from_shapes

__all__ = [
    "PRESETS",
    "Concept",
    "Denoiser",
    "DuoLoraError",
    "Gates",
    "LoraFile",
    "LoraPair",
    "LowRank",
    "MergeConfig",
    "MergedLora",
    "Picture",
    "StepReport",
    "UNetLayout",
    "attach",
    "combine",
    "initial_gates",
    "kohya_state_dict",
    "layer_roles",
    "layout_from_shapes",
    "lora_from_tensors",
    "make_merged",
    "make_pair",
    "open_gates",
    "place",
    "read_lora",
    "starting_gates",
    "train",
]
