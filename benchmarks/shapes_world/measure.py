"""How well sampled pictures show what their prompts ask for, by the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .model import Prompt
from .oracle import Oracle
from .sample import Denoise, sample


@dataclass(frozen=True)
class Score:
    """Shares of pictures: right content, right style, and neither head saying "other" about what it was asked for."""

    content: float
    style: float
    pictures: int

    @property
    def harmonic(self) -> float:
        total = self.content + self.style
        return 2 * self.content * self.style / total if total else 0.0


def score(denoise: Denoise, oracle: Oracle, prompts: Sequence[Prompt], seed: int, cfg: float = 4.0) -> Score:
    """Samples one picture per prompt and judges it; a prompt's missing word counts as right."""
    generator = torch.Generator().manual_seed(seed)
    contents = styles = 0
    for start in range(0, len(prompts), 64):
        chunk = prompts[start : start + 64]
        found_contents, found_styles = oracle.judge(sample(denoise, chunk, generator, cfg=cfg))
        for prompt, content, style in zip(chunk, found_contents.tolist(), found_styles.tolist(), strict=True):
            contents += prompt.content in (None, content)
            styles += prompt.style in (None, style)
    return Score(contents / len(prompts), styles / len(prompts), len(prompts))
