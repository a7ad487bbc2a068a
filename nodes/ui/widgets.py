"""Inputs that several nodes have in common, so that the same input has the same bounds wherever it is met."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.precision import COMPUTE_DTYPES

PLANNED = "auto"
CUSTOM = "as set here"


def strength_input(name: str, tooltip: str) -> io.Input:
    """A strength or weight; 1 is as it is."""
    return io.Float.Input(name, default=1.0, min=-5.0, max=5.0, step=0.05, tooltip=tooltip)


def strength_inputs() -> list[io.Input]:
    """The two strengths that stay free after training."""
    return [
        strength_input(
            f"{role}_strength",
            f"How strongly the {shown} shows. 1 is as trained; changing it needs no new training.",
        )
        for role, shown in (("content", "subject"), ("style", "style"))
    ]


def steps_input(default: int, tooltip: str) -> io.Input:
    """Training steps."""
    return io.Int.Input("steps", default=default, min=1, max=10000, tooltip=tooltip)


def seed_input(tooltip: str) -> io.Input:
    """The whole range that ComfyUI's own samplers take.

    It does not move by itself, as a sampler's would: pressing Run for another picture would train the merge again. A
    page adds what moves it to any input of this name unless told not to.
    """
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=tooltip)


def resolution_input(tooltip: str) -> io.Input:
    """Training size in pixels, the side of a square of equal area."""
    return io.Int.Input("resolution", default=1024, min=64, max=2048, step=64, tooltip=tooltip)


def rank_input(default: int) -> io.Input:
    """The rank of a new LoRA."""
    return io.Int.Input(
        "rank",
        default=default,
        min=1,
        max=1024,
        tooltip="Rank of the LoRA: how much it can hold, and the size of its file. 64 as in the paper; 16 for a "
        "smaller one.",
    )


def learning_rate_input(default: float, hint: str) -> io.Input:
    """The learning rate of a training from pictures."""
    return io.Float.Input(
        "learning_rate",
        default=default,
        min=0.0000001,
        max=1.0,
        step=0.000001,
        tooltip=f"How fast the LoRA learns. {hint}",
    )


def dial_input(name: str, default: float, range_: tuple[float, float, float], tooltip: str) -> io.Input:
    """A number between the first two of three, in steps of the third."""
    low, high, step = range_
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def switch_input(name: str, default: bool, tooltip: str) -> io.Input:
    """On or off."""
    return io.Boolean.Input(name, default=default, tooltip=tooltip)


def text_input(name: str, tooltip: str, placeholder: str | None = None) -> io.Input:
    """Text of several lines, empty at first."""
    return io.String.Input(name, default="", multiline=True, placeholder=placeholder, tooltip=tooltip)


def compute_input(tooltip: str) -> io.Input:
    """The precision of a training."""
    return io.Combo.Input("compute_dtype", options=list(COMPUTE_DTYPES), default="as loaded", tooltip=tooltip)


def memory_plan_input(what_for: str = "", *, optional: bool = False) -> io.Input:
    """Whether the planner decides on gradient checkpointing and micro-batch, or the artist."""
    return io.Combo.Input(
        "memory_plan",
        options=[PLANNED, CUSTOM],
        default=PLANNED,
        optional=optional,
        tooltip="auto: use gradient checkpointing and a smaller micro-batch only if the free memory asks for it. "
        f"as set here: start with checkpointing as it is set, and no larger micro-batch{what_for}.",
    )


def resume_input(*, optional: bool = False) -> io.Input:
    """Whether a training that was stopped goes on."""
    return io.Boolean.Input(
        "resume",
        default=True,
        optional=optional,
        tooltip="After a crash or Cancel, the same graph with the same seed goes on where its training stopped, with "
        "the same result as without the stop. Off: it starts from the first step, and nothing is kept.",
    )
