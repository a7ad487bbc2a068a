"""A training from pictures in a file: it comes back as it was, goes on bit for bit, or is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.ldm_unet import UNet
from duolora_core.checkpoint.file import read_checkpoint, write_checkpoint
from duolora_core.checkpoint.state import Checkpoint
from duolora_core.errors import DuoLoraError
from duolora_core.train_lora import UnzipPrompts, attach_loras, unzip, unzip_loras
from duolora_core.train_lora.trainable_lora import Side, TrainableLora, lora_tensors
from lora_trainings import CONFIG, example, grown, trained_loras
from tiny import TinyDenoiser
from train_lora.test_unzip import CONFIG as UNZIP
from train_lora.test_unzip import FORM, LATENT, PROMPTS

KEY, STEPS = "a" * 64, UNZIP.learning.steps


def unzipped(
    unet: UNet, steps: int | None, resume: Checkpoint | None = None, prompts: UnzipPrompts = PROMPTS
) -> tuple[dict[Side, TrainableLora], Checkpoint]:
    """So many steps, and the state after the last of them, taken when the training has been broken off already."""
    denoiser = TinyDenoiser(unet)
    loras = unzip_loras(denoiser.layout, FORM, UNZIP)
    with attach_loras(denoiser.modules, loras) as attached:
        training = unzip(denoiser, attached, [LATENT], prompts, UNZIP, resume=resume)
        *_, last = islice(training, steps)
        training.close()  # type: ignore[attr-defined]
    return loras, last.checkpoint()


def through_a_file(checkpoint: Checkpoint, loras: dict[Side, TrainableLora], folder: Path) -> Checkpoint:
    kept = replace(checkpoint, losses={"total": [0.0] * checkpoint.step}, pictures={"pictures": [LATENT]})
    path = write_checkpoint(folder / "kept.safetensors", kept, KEY)
    return read_checkpoint(path, KEY, Checkpoint(0, lora_tensors(loras)), STEPS)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_unzipping_goes_on_from_a_file_as_if_never_stopped(unet: UNet, stop: int, tmp_path: Path) -> None:
    """Whether or not columns were opened in the step that the stop fell into."""
    whole, _ = unzipped(unet, None)
    stopped, checkpoint = unzipped(unet, stop)
    gone_on, _ = unzipped(unet, None, through_a_file(checkpoint, stopped, tmp_path))
    for side, lora in whole.items():
        for name, tensor in lora.tensors().items():
            assert torch.equal(tensor, gone_on[side].tensors()[name]), (side, name)


@pytest.fixture
def kept(unet: UNet) -> Checkpoint:
    checkpoint = trained_loras(TinyDenoiser(unet), grown(), replace(CONFIG, steps=2)).checkpoints[-1]
    losses = {"total": [0.3, 0.1 + 0.2], "pictures": [1.0, 1e-30]}
    latents = {"pictures": [example(1).latent, example(2, (8, 16)).latent], "class_pictures": [example(3).latent]}
    return replace(checkpoint, losses=losses, pictures=latents)


def test_everything_comes_back_as_it_was(kept: Checkpoint, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    back = read_checkpoint(path, KEY, Checkpoint(0, lora_tensors(grown())), steps=3)
    assert (back.losses, back.step, back.scale_divisor) == (kept.losses, 2, 1)
    assert back.tensors.keys() == kept.tensors.keys() and back.pictures.keys() == kept.pictures.keys()
    assert all(torch.equal(back.tensors[name], each) for name, each in kept.tensors.items())
    for whose, latents in kept.pictures.items():
        assert all(map(torch.equal, back.pictures[whose], latents))
        assert len(back.pictures[whose]) == len(latents)


@pytest.mark.parametrize("what", ["steps", "loras"])
def test_another_training_is_refused(kept: Checkpoint, what: str, tmp_path: Path) -> None:
    """What a file itself may be wrong in is tested with that of a merge; it is the same format."""
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    start = Checkpoint(0, lora_tensors(grown(columns=what == "loras")))
    with pytest.raises(DuoLoraError, match=r"kept\.safetensors cannot be resumed from"):
        read_checkpoint(path, KEY, start, steps=1 if what == "steps" else 3)
