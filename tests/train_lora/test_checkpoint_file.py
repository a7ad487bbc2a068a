"""A training from pictures in a file: it comes back as it was, goes on bit for bit, or is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ldm_unet import UNet
from checkpoint_files import lie
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


@pytest.mark.parametrize("what", ["key", "steps", "loras", "cut", "bit"])
def test_another_training_or_a_damaged_file_is_refused(kept: Checkpoint, what: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    data = path.read_bytes()
    if what in ("cut", "bit"):
        path.write_bytes(data[:-1] if what == "cut" else data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    loras = grown(columns=True) if what == "loras" else grown()
    with pytest.raises(DuoLoraError, match=r"kept\.safetensors cannot be resumed from"):
        read_checkpoint(
            path, "b" * 64 if what == "key" else KEY, Checkpoint(0, lora_tensors(loras)), 1 if what == "steps" else 3
        )


LIES: dict[str, tuple[str, dict[str, Tensor], dict[str, Any]]] = {
    "a loss that is not finite": ("not finite", {"losses": torch.full((2, 2), math.nan, dtype=torch.float64)}, {}),
    "too few losses": ("its curves", {"losses": torch.ones(2, 1, dtype=torch.float64)}, {}),
    "one more tensor": ("not whole", {"more": torch.ones(1)}, {}),
    "no latent": ("not latents", {"pictures/0": torch.ones(3)}, {}),
    "a later step": ("its curves", {}, {"step": 3}),
    "no picture": ("not whole", {}, {"pictures": {"pictures": 0, "class_pictures": 1}}),
    "a term twice": ("its curves", {}, {"terms": ["total", "total"]}),
}


@pytest.mark.parametrize("told", list(LIES))
def test_a_file_that_lies_with_a_right_checksum_is_refused(kept: Checkpoint, told: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "kept.safetensors", kept, KEY)
    reason, tensors, says = LIES[told]
    lie(path, tensors, says)
    with pytest.raises(DuoLoraError, match=rf"kept\.safetensors cannot be resumed from .*{reason}"):
        read_checkpoint(path, KEY, Checkpoint(0, lora_tensors(grown())), steps=5)
