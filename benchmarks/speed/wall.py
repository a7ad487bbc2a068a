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


def step_seconds(tasks: Mapping[str, Task], rounds: int) -> dict[str, float]:
    """The median over the rounds of each contestant's seconds per step, after one step to warm up.

    Args:
        tasks: {contestant: its task}; all of one model, of which each gets a copy that shares the weights
    """
    with ExitStack() as stack:
        steps = {name: stack.enter_context(CONTESTANTS[name](separate(task))) for name, task in tasks.items()}
        for step in steps.values():
            step()
        seconds = [
            {name: _seconds(step, tasks[name].denoiser.device) for name, step in steps.items()} for _ in range(rounds)
        ]
    return {name: median(row[name] for row in seconds) for name in tasks}


def separate(task: Task) -> Task:
    """The same task on modules of its own, on which no other contestant's hooks hang."""
    unet = task.denoiser.unet
    with torch.device("meta"):
        twin = UNet(unet.config)
    twin.load_state_dict(unet.state_dict(), assign=True)
    return replace(task, denoiser=UNetDenoiser(twin.requires_grad_(False)))


def _seconds(step: Step, device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    step()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
