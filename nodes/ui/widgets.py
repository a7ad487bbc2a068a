"""Inputs that several nodes have in common, so that the same input has the same bounds wherever it is met."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.precision import COMPUTE_DTYPES

PLANNED = "auto"
CUSTOM = "as set here"


def strength_input(name: str, tooltip: str | None = None) -> io.Input:
    """A strength or weight; 1 is as it is."""
    return io.Float.Input(name, default=1.0, min=-5.0, max=5.0, step=0.05, tooltip=tooltip)


def strength_inputs() -> list[io.Input]:
    """The two strengths that stay free after training."""
    return [strength_input("content_strength"), strength_input("style_strength")]


def steps_input(default: int, tooltip: str | None = None) -> io.Input:
    """Training steps."""
    return io.Int.Input("steps", default=default, min=1, max=10000, tooltip=tooltip)


def seed_input(tooltip: str | None = None) -> io.Input:
    """The whole range that ComfyUI's own samplers take.

    It does not move by itself, as a sampler's would: pressing Run for another picture would train the merge again. A
    page adds what moves it to any input of this name unless told not to.
    """
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=tooltip)


def resolution_input(tooltip: str | None = None) -> io.Input:
    """Training size in pixels, the side of a square of equal area."""
    return io.Int.Input("resolution", default=1024, min=64, max=2048, step=64, tooltip=tooltip)


def rank_input(default: int) -> io.Input:
    """The rank of a new LoRA."""
    return io.Int.Input("rank", default=default, min=1, max=1024)


def learning_rate_input(default: float) -> io.Input:
    """The learning rate of a training from pictures."""
    return io.Float.Input("learning_rate", default=default, min=0.0000001, max=1.0, step=0.000001)


def dial_input(name: str, default: float, range_: tuple[float, float, float], tooltip: str | None = None) -> io.Input:
    """A number between the first two of three, in steps of the third."""
    low, high, step = range_
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def switch_input(name: str, default: bool, *, optional: bool = False) -> io.Input:
    """On or off."""
    return io.Boolean.Input(name, default=default, optional=optional)


def text_input(name: str, tooltip: str | None = None, placeholder: str | None = None) -> io.Input:
    """Text of several lines, empty at first."""
    return io.String.Input(name, default="", multiline=True, placeholder=placeholder, tooltip=tooltip)


def compute_input() -> io.Input:
    """The precision of a training."""
    return io.Combo.Input("compute_dtype", options=list(COMPUTE_DTYPES), default="as loaded")


def memory_plan_input(*, optional: bool = False) -> io.Input:
    """Whether the planner decides on gradient checkpointing and micro-batch, or the artist."""
    return io.Combo.Input("memory_plan", options=[PLANNED, CUSTOM], default=PLANNED, optional=optional)


def resume_input(*, optional: bool = False) -> io.Input:
    """Whether a training that was stopped goes on."""
    return switch_input("resume", True, optional=optional)
