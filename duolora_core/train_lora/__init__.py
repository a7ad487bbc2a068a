"""Where LoRAs come from: trained on pictures, by DreamBooth, B-LoRA or UnZipLoRA, on one loop.

    loras = concept_lora(layout, "content", LoraConfig(rank=64))   # one subject or style from 1 to 30 pictures
    loras = b_loras(layout, LoraConfig(rank=64))                   # one picture, two blocks, content and style
    with attach_loras(denoiser.modules, loras) as attached:
        for report in train_lora(denoiser, attached, examples, TrainConfig(), class_examples=class_examples):
            ...                                                    # the caller owns progress, preview and interrupt
    lora = loras["content"].fold()                                 # an ordinary LoRA: kohya_state_dict(lora)

    loras = unzip_loras(layout, LoraConfig(rank=64), UnzipConfig())  # one picture, content and style together
    with attach_loras(denoiser.modules, loras) as attached:
        for report in unzip(denoiser, attached, [latent], prompts, UnzipConfig()):
            ...

`report.checkpoint()` is all that it takes to resume later, with `resume=`; every random number follows from the seed
and the step.

The files in reading order: `trainable_lora`, `target_modules` (which layers), `attached_loras`, `per_lora_prompts`,
`config`, `examples` (what a step sees), `loss_weighting`, `param_groups` (learning rates), `dreambooth`
(the loop), `column_masks`, `unzip`, `workload` (memory).
"""

from .attached_loras import AttachedLoras, attach_loras
from .config import Rates, TrainConfig
from .dreambooth import train_lora
from .examples import Example
from .target_modules import LoraConfig, TargetModules, b_loras, concept_lora
from .trainable_lora import TrainableLora
from .unzip import UnzipConfig, UnzipPrompts, unzip, unzip_loras
from .workload import train_lora_workload

__all__ = [
    "AttachedLoras",
    "Example",
    "LoraConfig",
    "Rates",
    "TargetModules",
    "TrainConfig",
    "TrainableLora",
    "UnzipConfig",
    "UnzipPrompts",
    "attach_loras",
    "b_loras",
    "concept_lora",
    "train_lora",
    "train_lora_workload",
    "unzip",
    "unzip_loras",
]
