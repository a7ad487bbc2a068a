"""DuoLoRA: merge content and style LoRAs of the SDXL family into one that keeps all of them (arXiv 2504.13206).

The story, in the order of the calls:

    content = match_to_model(read_lora(path), layout)   # any format in, LowRank layers out
    pair = make_pair(content, style, layout)            # stacked, each in its SVD basis; make_stack takes two to eight
    roles = layer_roles(layout, "resolution")           # which blocks carry content, which style
    gates = starting_gates(pair, roles, config)         # the masks, one number per rank component
    with attach(denoiser.modules, pair, gates) as gated:
        for report in train(denoiser, gated, content_pictures, style_pictures, roles, config):
            ...                                         # the caller owns progress, preview and interrupt
    merged = make_merged(pair, gates)                   # roles kept: strengths stay adjustable
    tensors = kohya_state_dict(merged.fold(0.9, 1.1))   # an ordinary LoRA

Pure PyTorch: it knows no host. What it needs of a diffusion model is the `Denoiser` protocol.

The rooms; each imports only from those above it, and says in its `__init__` in which order its files are read:

- `errors`: one exception family
- `files`: strangers' files in, whole files out
- `checkpoint`: a training that can be resumed, in a file
- `model`: what a diffusion model is to the engine
- `lora`: what a LoRA is
- `merge`: the method
- `train_lora`: where LoRAs come from
- `baselines`: what others do with the same LoRAs
- `report`: words and pictures; not imported here, because it needs Pillow
"""

from .errors import DuoLoraError
from .lora.low_rank import LowRank
from .lora.match import PlacedLora, match_to_model
from .lora.read import LoraFile, lora_from_tensors, read_lora
from .lora.save import kohya_state_dict
from .merge.config import PRESETS, MergeConfig
from .merge.gated import attach
from .merge.gates import Gates, initial_gates, open_gates
from .merge.merged import MergedLora, combine, make_merged
from .merge.roles import layer_roles
from .merge.stack import LoraPair, LoraStack, make_pair, make_stack
from .merge.teachers import Picture
from .merge.trainer import StepReport, starting_gates, train
from .model.denoiser import Denoiser
from .model.layout import UNetLayout, layout_from_shapes

__all__ = [
    "PRESETS",
    "Denoiser",
    "DuoLoraError",
    "Gates",
    "LoraFile",
    "LoraPair",
    "LoraStack",
    "LowRank",
    "MergeConfig",
    "MergedLora",
    "Picture",
    "PlacedLora",
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
    "make_stack",
    "match_to_model",
    "open_gates",
    "read_lora",
    "starting_gates",
    "train",
]
