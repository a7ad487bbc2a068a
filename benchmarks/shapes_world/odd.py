"""Odd pictures: what a failed merge may draw, so that the oracle learns to say "other" instead of the nearest name.

Each maker returns pictures with a label for each head: the true one where that part is intact, `OTHER_*` where it is
broken, and `UNSURE`, which nobody is asked about, where people would disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .looks import outline_table, palette_table
from .names import CONTENTS, STYLES
from .render import SIZE, Pose, Scene, paint, scene
from .shapes import SIDE, distance_table, plane

OTHER_CONTENT = len(CONTENTS)
OTHER_STYLE = len(STYLES)
UNSURE = -100  # what cross entropy leaves out
NO_SHAPE = 9.0  # a distance that no shape reaches


@dataclass(frozen=True)
class Labelled:
    """Pictures (n, 3, 32, 32) with a content label (n,) and a style label (n,)."""

    pictures: Tensor
    contents: Tensor
    styles: Tensor


class Draw:
    """Random choices from one generator."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Floats in [low, high)."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal floats."""
        return torch.randn(*shape, generator=self.generator)

    def below(self, end: int, count: int) -> Tensor:
        """Integers in [0, end): (count,)."""
        return torch.randint(end, (count,), generator=self.generator)

    def another(self, labels: Tensor, end: int) -> Tensor:
        """Integers in [0, end) that differ from the labels (n,)."""
        return (labels + 1 + self.below(end - 1, len(labels))) % end

    def subject(self, count: int) -> tuple[Tensor, Tensor, Pose]:
        """Contents and styles, each (count,), and poses a little beyond the range of `render`."""
        pose = Pose(
            self.uniform(-2.6, 2.6, count),
            self.uniform(-2.6, 2.6, count),
            self.uniform(9, 12, count),
            self.uniform(-0.23, 0.23, count),
        )
        return self.below(len(CONTENTS), count), self.below(len(STYLES), count), pose


def intact(count: int, draw: Draw) -> Labelled:
    """Pictures as they should be."""
    contents, styles, pose = draw.subject(count)
    return Labelled(paint(scene(contents, styles), pose), contents, styles)


def blurred(count: int, draw: Draw) -> Labelled:
    """Blurred until nothing can be read: Gaussian of 3.5 to 7 pixels."""
    return _lost(_blur(intact(count, draw).pictures, draw.uniform(3.5, 7, count)))


def noise(count: int, draw: Draw) -> Labelled:
    """Noise of some grain around some colour."""
    colour, size = draw.uniform(-1, 1, count, 3, 1, 1), draw.uniform(0.1, 1, count, 1, 1, 1)
    blur = draw.uniform(0.05, 3, count)
    grain = _blur(draw.normal(count, 3, SIZE, SIZE), blur) * (1 + 2.5 * blur).view(-1, 1, 1, 1)
    return _lost((colour + size * grain).clamp(-1, 1))


def unfinished(count: int, draw: Draw) -> Labelled:
    """Stopped half way through the denoising: the picture under more noise than signal."""
    kept = draw.uniform(0.15, 0.5, count, 1, 1, 1)
    noisy = kept * intact(count, draw).pictures + (1 - kept**2).sqrt() * draw.normal(count, 3, SIZE, SIZE)
    return _lost(noisy.clamp(-1, 1))


def empty(count: int, draw: Draw) -> Labelled:
    """The background of a style with nothing on it."""
    contents, styles, pose = draw.subject(count)
    what = scene(contents, styles)
    return _lost(paint(replace(what, distance=torch.full_like(what.distance, NO_SHAPE)), pose))


def plain(count: int, draw: Draw) -> Labelled:
    """One colour, or a fade from one to another."""
    ends = draw.uniform(-1, 1, 2, count, 3, 1, 1)
    angle = draw.uniform(0, 2 * math.pi, count, 1, 1)
    x, y = (F.interpolate(axis[None, None], (SIZE, SIZE), mode="area")[0, 0] / 2 for axis in plane())
    mix = ((x * angle.cos() + y * angle.sin() + 1) / 2).clamp(0, 1)
    return _lost(
        torch.lerp(ends[0], ends[1] if torch.rand(1, generator=draw.generator) < 0.7 else ends[0], mix[:, None])
    )


def two_pictures(count: int, draw: Draw) -> Labelled:
    """Two pictures with nothing in common, one through the other."""
    contents, styles, pose = draw.subject(count)
    over = scene(draw.another(contents, len(CONTENTS)), draw.another(styles, len(STYLES)))
    return _lost(_through(paint(scene(contents, styles), pose), paint(over, draw.subject(count)[2]), draw))


def two_contents(count: int, draw: Draw) -> Labelled:
    """Two contents of one style, one through the other."""
    contents, styles, pose = draw.subject(count)
    over = scene(draw.another(contents, len(CONTENTS)), styles)
    pictures = _through(paint(scene(contents, styles), pose), paint(over, draw.subject(count)[2]), draw)
    return Labelled(pictures, _filled(count, OTHER_CONTENT), _filled(count, UNSURE))


def two_styles(count: int, draw: Draw) -> Labelled:
    """One content in two styles at once, one through the other."""
    contents, styles, pose = draw.subject(count)
    over = scene(contents, draw.another(styles, len(STYLES)))
    pictures = _through(paint(scene(contents, styles), pose), paint(over, pose), draw)
    return Labelled(pictures, _filled(count, UNSURE), _filled(count, OTHER_STYLE))


def cut(count: int, draw: Draw) -> Labelled:
    """A shape of which one half is missing."""
    contents, styles, pose = draw.subject(count)
    x, y = plane()
    angle = draw.uniform(0, 2 * math.pi, count, 1, 1)
    what = scene(contents, styles)
    side = x * angle.cos() + y * angle.sin() - draw.uniform(-0.25, 0.15, count, 1, 1)
    return _reshaped(replace(what, distance=torch.maximum(what.distance, side)), styles, pose)


def new_shape(count: int, draw: Draw) -> Labelled:
    """A silhouette of no content, in a true style: two contents joined, crossed or averaged, or a blob."""
    contents, styles, pose = draw.subject(count)
    what = scene(contents, styles)
    second = distance_table()[draw.another(contents, len(CONTENTS))]
    shift = draw.below(57, 2) - 28
    second = torch.roll(second, tuple(shift.tolist()), dims=(1, 2))
    blob = draw.normal(count, 1, 7, 7)
    blob = F.interpolate(blob, (SIDE, SIDE), mode="bicubic", align_corners=False)[:, 0] * 0.35
    blob = torch.maximum(blob - 0.05, torch.hypot(*plane()) - 1)
    kinds = torch.stack(
        [
            torch.minimum(what.distance, second),
            torch.maximum(what.distance, -second),
            torch.lerp(what.distance, second, 0.5),
            blob,
        ]
    )
    distance = kinds[draw.below(len(kinds), count), torch.arange(count)]
    return _reshaped(replace(what, distance=distance), styles, pose)


def new_style(count: int, draw: Draw) -> Labelled:
    """A true content in a style that does not exist: parts of two styles, or the colours of none."""
    contents, styles, pose = draw.subject(count)
    others = draw.another(styles, len(STYLES))
    first, second = scene(contents, styles), scene(contents, others)
    part = draw.below(4, count)
    palette = palette_table()[styles].clone()
    backs, fills, none = part == 1, part == 2, part == 3
    palette[backs, 2:] = palette_table()[others][backs, 2:]
    palette[fills, :2] = palette_table()[others][fills, :2]
    palette[none] = palette[none].roll(1, dims=2)
    mixed = replace(first, palette=palette)
    mixed = replace(
        mixed, texture=_swap(first.texture, second.texture, (part == 0) | fills & (draw.below(2, count) > 0))
    )
    mixed = replace(mixed, ground=_swap(first.ground, second.ground, backs))
    mixed = replace(mixed, outline=_swap(first.outline, outline_table()[others], fills & (draw.below(2, count) > 0)))
    pictures = paint(mixed, pose)
    nearest = torch.stack([_apart(pictures, paint(true, pose)) for true in (first, second)]).amin(0)
    contrast = (palette[:, :2].mean(1) - palette[:, 2:].mean(1)).abs().mean(1)
    contents = torch.where(contrast > 0.35, contents, UNSURE)
    return Labelled(pictures, contents, torch.where(nearest > 0.07, OTHER_STYLE, UNSURE))


_LOST = (blurred, noise, unfinished, empty, plain, two_pictures)
_HALF_LOST = (two_contents, two_styles, cut, new_shape, new_style)
ODD: dict[str, Callable[[int, Draw], Labelled]] = {make.__name__: make for make in (*_LOST, *_HALF_LOST)}


def worn(pictures: Tensor, draw: Draw) -> Tensor:
    """The small faults that every generated picture has and that change no label: (n, 3, 32, 32)."""
    count = len(pictures)
    pictures = _blur(pictures, draw.uniform(0.05, 0.75, count))
    pictures = pictures * draw.uniform(0.88, 1.08, count, 3, 1, 1) + draw.uniform(-0.07, 0.07, count, 3, 1, 1)
    grain = _blur(draw.normal(count, 3, SIZE, SIZE), draw.uniform(0.05, 0.8, count))
    return (pictures + draw.uniform(0, 0.15, count, 1, 1, 1) * grain).clamp(-1, 1)


def _filled(count: int, label: int) -> Tensor:
    return torch.full((count,), label)


def _lost(pictures: Tensor) -> Labelled:
    count = len(pictures)
    return Labelled(pictures, _filled(count, OTHER_CONTENT), _filled(count, OTHER_STYLE))


def _through(under: Tensor, over: Tensor, draw: Draw) -> Tensor:
    return torch.lerp(under, over, draw.uniform(0.38, 0.62, len(under), 1, 1, 1))


def _swap(first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (first.ndim - 1)), second, first)


def _apart(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().mean((1, 2, 3))


def _reshaped(what: Scene, styles: Tensor, pose: Pose) -> Labelled:
    """Content is "other" unless the silhouette comes near that of a content or is hardly there."""
    inside, known = ((d < 0)[:, ::4, ::4].flatten(1).float() for d in (what.distance, distance_table()))
    both = inside @ known.T
    overlap = both / (inside.sum(1)[:, None] + known.sum(1) - both)  # (n, contents)
    odd = overlap.amax(1) < 0.72
    large = inside.mean(1) > 0.07
    contents = torch.where(odd, OTHER_CONTENT, UNSURE)
    return Labelled(paint(what, pose), contents, torch.where(large, styles, UNSURE))


def _blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with its own sigma (n,) in pixels for every picture (n, 3, 32, 32)."""
    places = torch.arange(SIZE, dtype=torch.float32)
    spread = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma.view(-1, 1, 1) ** 2))  # (n, 32, 32)
    spread = (spread / spread.sum(2, keepdim=True))[:, None]
    return spread @ pictures @ spread.transpose(2, 3)
