"""Seconds per training step, the contestants taking turns in one process, so that they share the machine's moods."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

import torch

from benchmarks.ldm_unet import UNet
from benchmarks.random_sdxl import UNetDenoiser
from benchmarks.speed.contestants import CONTESTANTS, Step, Task


def step_seconds(entries: Mapping[str, tuple[str, Task]], rounds: int) -> dict[str, float]:
    """The median over the rounds of every entry's seconds per step, after one step to warm up.

    Args:
        entries: {name: (contestant, task)}; all of one model, of which each gets a copy that shares the weights
    """
    with ExitStack() as stack:
        steps = {
            name: (stack.enter_context(CONTESTANTS[contestant](separate(task))), task.denoiser.device)
            for name, (contestant, task) in entries.items()
        }
        for step, _ in steps.values():
            step()
        seconds = [{name: _seconds(*step) for name, step in steps.items()} for _ in range(rounds)]
    return {name: median(row[name] for row in seconds) for name in entries}


def separate(task: Task) -> Task:
    """The same task on modules of its own, on which no other contestant's hooks hang."""
    unet = task.denoiser.unet
    with torch.device("meta"):
        twin = UNet(unet.config)
    twin.load_state_dict(unet.state_dict(), assign=True)
    return replace(task, denoiser=UNetDenoiser(twin.requires_grad_(False)))


def _seconds(step: Step, device: torch.device) -> float:
    finish(device)
    started = time.perf_counter()
    step()
    finish(device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Waits until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
