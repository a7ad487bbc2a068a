"""What the oracle sees in sampled pictures, as shares with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.word_sampling import Denoise

from .model import Prompt
from .oracle import Oracle
from .sample import sample

CHUNK = 32
"""Pictures that are sampled together."""


@dataclass(frozen=True)
class Verdict:
    """One row of booleans per picture of one case: is the content there, is the style, does a foreign content show.

    Attributes:
        seen: (pictures, 3)
    """

    seen: Tensor

    @property
    def content(self) -> float:
        return float(self.seen[:, 0].float().mean())

    @property
    def style(self) -> float:
        return float(self.seen[:, 1].float().mean())

    @property
    def leak(self) -> float:
        return float(self.seen[:, 2].float().mean())

    @property
    def both(self) -> float:
        """Share of pictures with content and style at once."""
        return float((self.seen[:, 0] & self.seen[:, 1]).float().mean())

    @property
    def harmonic(self) -> float:
        """Harmonic mean of content and style accuracy."""
        return _harmonic(self.seen.float())


def paint(denoise: Denoise, prompts: Sequence[Prompt], seed: int) -> Tensor:
    """(len(prompts), 3, 32, 32); a picture depends on the seed, its place and its prompt alone."""
    generator = torch.Generator().manual_seed(seed)
    chunks = [prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK)]
    return torch.cat([sample(denoise, chunk, generator) for chunk in chunks])


def judge(pictures: Tensor, prompts: Sequence[Prompt], oracle: Oracle, foreign: Sequence[int] = ()) -> Verdict:
    """A prompt's missing word counts as right; `foreign` are the contents whose showing is a leak."""
    contents, styles = oracle.judge(pictures)
    rows = [
        (prompt.content in (None, content), prompt.style in (None, style), content in foreign)
        for prompt, content, style in zip(prompts, contents.tolist(), styles.tolist(), strict=True)
    ]
    return Verdict(torch.tensor(rows))


@dataclass(frozen=True)
class Summary:
    """A method over all cases: every number is the mean over cases, `interval` the bootstrap 95 % one of `harmonic`."""

    content: float
    style: float
    harmonic: float
    both: float
    leak: float
    interval: tuple[float, float]
    leak_interval: tuple[float, float]


def summarise(verdicts: Sequence[Verdict], draws: int = 2000, seed: int = 0) -> Summary:
    """Means over cases. The bootstrap draws cases, and in each of them pictures."""
    harmonics, leaks = bootstrap(verdicts, draws, seed)
    count = len(verdicts)
    return Summary(
        content=sum(v.content for v in verdicts) / count,
        style=sum(v.style for v in verdicts) / count,
        harmonic=sum(v.harmonic for v in verdicts) / count,
        both=sum(v.both for v in verdicts) / count,
        leak=sum(v.leak for v in verdicts) / count,
        interval=interval(harmonics),
        leak_interval=interval(leaks),
    )


def bootstrap(verdicts: Sequence[Verdict], draws: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Harmonic mean and leak of resampled cases and pictures, each (draws,).

    The draws depend on the seed and the sizes alone, so two methods on the same cases may be compared draw by draw.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = torch.stack([verdict.seen for verdict in verdicts]).float()  # (cases, pictures, 3)
    cases, pictures = seen.shape[:2]
    harmonics, leaks = torch.empty(draws), torch.empty(draws)
    for i in range(draws):
        case = torch.randint(cases, (cases, 1), generator=generator)
        drawn = seen[case, torch.randint(pictures, (cases, pictures), generator=generator)]  # (cases, pictures, 3)
        content, style, leak = drawn.mean(1).unbind(1)  # (cases,) each
        harmonics[i] = (2 * content * style / (content + style).clamp(min=1e-9)).mean()
        leaks[i] = leak.mean()
    return harmonics, leaks


def interval(values: Tensor) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws (draws,)."""
    low, high = values.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def _harmonic(seen: Tensor) -> float:
    content, style = seen[:, 0].mean(), seen[:, 1].mean()
    return float(2 * content * style / (content + style).clamp(min=1e-9))
