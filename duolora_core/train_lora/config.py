"""Every setting of a training from pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import SettingsError

Schedule = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class Rates:
    """Factors on the learning rate for parts of the model; a layer gets its kind's times its block's.

    Attributes:
        attention, feed_forward, projection, convolution: by what a layer does; projections stand around
            transformers
        content_blocks, style_blocks: by the role of its block under `prior`
        prior: a preset's name or a custom string, see `layer_roles`
    """

    attention: float = 1.0
    feed_forward: float = 1.0
    projection: float = 1.0
    convolution: float = 1.0
    content_blocks: float = 1.0
    style_blocks: float = 1.0
    prior: str = "resolution"

    def __post_init__(self) -> None:
        for name in ("attention", "feed_forward", "projection", "convolution", "content_blocks", "style_blocks"):
            if not 0.0 <= getattr(self, name) <= 100.0:
                raise SettingsError(f"The {name} rate is {getattr(self, name)}, but must lie between 0 and 100.")


@dataclass(frozen=True)
class TrainConfig:
    """How LoRAs are trained from pictures. Steps and learning rate are the paper's (section 4 of arXiv 2504.13206).

    Attributes:
        steps: of the optimiser
        learning_rate, weight_decay, clip: AdamW over the factors; clip bounds the gradient's norm
        rates: factors on the learning rate by parts of the model
        batch: pictures a step; all of one size
        micro_batch: samples per forward, at most: gradients of one batch are accumulated over several forwards. The
            result does not depend on it
        schedule: of the learning rate after the warm-up: constant, half a cosine down to 0, or constant for the first
            half of the steps and then linearly down to 0
        warmup: steps over which the learning rate rises from 0
        min_snr_gamma: weighs noise levels by min(SNR, γ), see `snr_weight`; None weighs them all alike
        prior_weight: of the class pictures' loss, if there are any
        strengths: every step applies the LoRAs at a strength from this range. Trained at 1 alone, small LoRAs work at 1
            alone; with a range they hold over an artist's strength dial
        seed: of noise, timesteps and the order of pictures
    """

    steps: int = 1000
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    clip: float = 1.0
    rates: Rates = field(default_factory=Rates)
    batch: int = 1
    micro_batch: int = 1
    schedule: Schedule = "constant"
    warmup: int = 0
    min_snr_gamma: float | None = None
    prior_weight: float = 1.0
    strengths: tuple[float, float] = (1.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "steps": (self.steps, 1, 1_000_000),
            "learning_rate": (self.learning_rate, 0.0, 10.0),
            "weight_decay": (self.weight_decay, 0.0, 1.0),
            "clip": (self.clip, 1e-12, float("inf")),
            "batch": (self.batch, 1, 1024),
            "micro_batch": (self.micro_batch, 1, 1024),
            "warmup": (self.warmup, 0, self.steps),
            "min_snr_gamma": (1.0 if self.min_snr_gamma is None else self.min_snr_gamma, 1e-3, 1e6),
            "prior_weight": (self.prior_weight, 0.0, 100.0),
            "the lower strength": (self.strengths[0], 0.0, self.strengths[1]),
            "the upper strength": (self.strengths[1], self.strengths[0], 10.0),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}, but must lie between {low} and {high}.")
        if self.schedule not in get_args(Schedule):
            raise SettingsError(f"schedule is {self.schedule}, but must be one of {', '.join(get_args(Schedule))}.")
