"""Every setting of a merge, and presets: the two that a reader can reproduce, and a fast one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import SettingsError
from .gates import Initialisation
from .stack import Basis

PriorForm = Literal["diagonal", "vector"]
CycleRoute = Literal["authors", "differentiable"]
Timesteps = Literal["uniform", "stratified"]
Router = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class MergeConfig:
    """How a merge is set up and trained. The defaults are ours; see `PRESETS` for the paper's and the authors' code.

    Attributes:
        steps, learning_rate, weight_decay, clip: AdamW over the gates; clip bounds the gradient's norm
        basis: gate the SVD components of each LoRA, or its factors as they are in the file
        layer_prior: a preset's name or a custom string, see `layer_roles`
        initialisation, content_threshold, style_threshold: see `initial_gates`
        prior_form, sparsity, rank_weight: see `layer_prior_loss`
        layer_prior_weight, cycle_weight, reconstruction_weight: weights of the three losses; the first two are off by
            default, because neither gained anything where it could be measured (docs/quality.md)
        cycle_route: compare the merged prediction with the twice-hopped teacher (`authors`), or send the hopped latent
            through the merge and compare with the single LoRA (`differentiable`)
        micro_batch: samples per forward; the result does not depend on it
        seed: of initialisation, noise, timesteps and the choice of pictures
        pool: how many samples of pictures, noise and timestep there are, whose teachers are evaluated once and reused;
            0 is exact, a new sample in every step. At least as many as steps is the same as 0.
        timesteps: of each sample on its own (`uniform`), or one in each of as many equal strata of the whole range as
            there are samples (`stratified`)
        router: whether the gates start behind SSR-Merge's router, see `router`; `auto`: where more than two LoRAs meet
    """

    steps: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    clip: float = 1.0
    basis: Basis = "svd"
    layer_prior: str = "resolution"
    initialisation: Initialisation = "ones"
    content_threshold: float = 0.1
    style_threshold: float = 0.0
    prior_form: PriorForm = "diagonal"
    sparsity: float = 0.1
    rank_weight: float = 2.0
    layer_prior_weight: float = 0.0
    cycle_weight: float = 0.0
    reconstruction_weight: float = 1.0
    cycle_route: CycleRoute = "authors"
    micro_batch: int = 4
    seed: int = 0
    pool: int = 0
    timesteps: Timesteps = "uniform"
    router: Router = "auto"

    def routes(self, loras: int) -> bool:
        """Whether a merge of so many LoRAs gets a router."""
        return loras > 2 if self.router == "auto" else self.router == "on"

    def __post_init__(self) -> None:
        bounds = {
            "steps": (self.steps, 1, 100_000),
            "learning_rate": (self.learning_rate, 0.0, 10.0),
            "weight_decay": (self.weight_decay, 0.0, 1.0),
            "clip": (self.clip, 1e-12, float("inf")),
            "content_threshold": (self.content_threshold, 0.0, 1.0),
            "style_threshold": (self.style_threshold, 0.0, self.content_threshold),
            "micro_batch": (self.micro_batch, 1, 1024),
            "pool": (self.pool, 0, 100_000),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}, but must lie between {low} and {high}.")
        for name, value, known in (
            ("timesteps", self.timesteps, get_args(Timesteps)),
            ("router", self.router, get_args(Router)),
        ):
            if value not in known:
                raise SettingsError(f"{name} is {value}, but must be one of {', '.join(known)}.")


FAST: Mapping[str, Any] = {"steps": 40, "pool": 16, "timesteps": "stratified"}
"""What makes a merge fast: with all else at its default, at most a third of the default's network evaluations."""

# The paper does not give lambda of equation 1. Read literally (1, with a sparsity of 1) the layer prior shrinks both
# roles alike; sparsity and rank weight of our default are what makes it prefer one, once it is switched on.
PRESETS: Mapping[str, MergeConfig] = {
    "default": MergeConfig(),
    "paper": MergeConfig(
        initialisation="random",
        rank_weight=1.0,
        sparsity=1.0,
        layer_prior_weight=0.1,
        cycle_weight=0.01,
        reconstruction_weight=0.01,
    ),
    "authors_code": MergeConfig(
        weight_decay=1e-4,
        basis="factors",
        layer_prior="authors_code",
        prior_form="vector",
        sparsity=1.0,
        rank_weight=1.0,
        layer_prior_weight=0.01,
        cycle_weight=0.1,
    ),
    "fast": MergeConfig(**FAST),
}
