"""From pictures to LoRAs: DreamBooth, B-LoRA and UnZipLoRA on one loop.

    loras = concept_lora(layout, "content", LoraForm(rank=64))     # one concept from 1 to 30 pictures
    loras = b_loras(layout, LoraForm(rank=64))                     # one picture, two blocks, content and style
    with attach_loras(denoiser.modules, loras) as live:
        for report in learn(denoiser, live, examples, LearnConfig(), class_examples=class_examples):
            ...                                                    # the caller owns progress, preview and interrupt
    lora = loras["content"].fold()                                 # an ordinary LoRA: kohya_state_dict(lora)

    loras = unzip_loras(layout, LoraForm(rank=64), UnzipConfig())  # one picture, content and style trained together
    with attach_loras(denoiser.modules, loras) as live:
        for report in unzip(denoiser, live, [latent], prompts, UnzipConfig()):
            ...

`report.checkpoint()` is all that it takes to go on later, with `resume=`; every random number follows from the seed and
the step.

The files in reading order: `lora_in_training`, `coverage` (which layers), `live_loras`, `own_prompts`, `config`,
`examples` (what a step sees), `weighting`, `rates`, `learning` (the loop), `progress`, `columns`, `unzip`,
`workload` (memory), `unfinished` (a training in a file).
"""

from .config import LearnConfig, Rates
from .coverage import Coverage, LoraForm, b_loras, concept_lora
from .examples import Example
from .learning import learn
from .live_loras import LiveLoras, attach_loras
from .lora_in_training import LoraInTraining
from .progress import Checkpoint, LearnReport
from .unzip import UnzipConfig, UnzipPrompts, unzip, unzip_loras
from .workload import learning_workload

__all__ = [
    "Checkpoint",
    "Coverage",
    "Example",
    "LearnConfig",
    "LearnReport",
    "LiveLoras",
    "LoraForm",
    "LoraInTraining",
    "Rates",
    "UnzipConfig",
    "UnzipPrompts",
    "attach_loras",
    "b_loras",
    "concept_lora",
    "learn",
    "learning_workload",
    "unzip",
    "unzip_loras",
]
