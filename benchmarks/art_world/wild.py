"""Nameless pictures: other subjects and other looks, so that the base model knows more of drawings than its words.

A concept LoRA then has to find its concept in what the base can paint already, as on a large model, and need not teach
it to paint. Everything comes from known subjects, from subjects without a word, and from sets and looks that are no
style of the world: no novel subject and no novel style is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .names import CONTENTS, NAMELESS, STYLES, labels
from .pictures import compose, drawings, named, places_of
from .restyle import HANDS, luminance
from .sets import ALIKE

_LUMA_STROKE = 0.42
"""Ink is darker than this; paper and wash are lighter."""


@cache
def known_subjects() -> Tensor:
    return torch.tensor(labels(CONTENTS, "known"))


@cache
def named_hands() -> tuple[int, ...]:
    """Known styles that hold drawings of subjects without a word too, as places in the table."""
    kept = (*HANDS, "ink")
    return tuple(place for place in labels(STYLES, "known") if STYLES[place].looks in kept)


@cache
def alike() -> Tensor:
    """(sets, known subjects and then nameless ones, 4, SIZE, SIZE) in 0 to 255: hands that are no style."""
    subjects = [CONTENTS[place].looks for place in labels(CONTENTS, "known")] + NAMELESS.split()
    return _table(ALIKE, subjects)


@cache
def strangers() -> Tensor:
    """(named hands, nameless subjects, 4, SIZE, SIZE) in 0 to 255."""
    return _table([STYLES[place].looks for place in named_hands()], NAMELESS.split())


def _table(styles: Sequence[str], subjects: Sequence[str]) -> Tensor:
    held = drawings()
    rows = torch.stack([held.rgba(place) for place in places_of(styles, subjects)])
    return (rows * 255).round().byte().unflatten(0, (len(styles), len(subjects)))


def wild_style(contents: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, SIZE, SIZE) of known subjects (n,) in looks that have no name."""
    rows = torch.searchsorted(known_subjects(), contents)
    return _looks(rows, contents, generator)


def wild_content(styles: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, SIZE, SIZE) of nameless subjects in named hands, which are places of the table of styles (n,)."""
    hands = torch.tensor([named_hands().index(style) for style in styles.tolist()], dtype=torch.long)
    subjects = torch.randint(strangers().shape[1], (len(styles),), generator=generator)
    return _mirrored(compose(strangers()[hands, subjects].float() / 255, _colors(len(styles), generator)), generator)


def wild(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, SIZE, SIZE) of nameless subjects in nameless looks."""
    rows = len(known_subjects()) + torch.randint(len(NAMELESS.split()), (count,), generator=generator)
    return _mirrored(_looks(rows, None, generator), generator)


def _looks(rows: Tensor, contents: Tensor | None, generator: torch.Generator) -> Tensor:
    """Drawings by hands that are no style, as they are or in random colours; known subjects also as random lines."""
    count = len(rows)
    sets = torch.randint(len(ALIKE), (count,), generator=generator)
    plain = compose(alike()[sets, rows].float() / 255, _colors(count, generator)) / 2 + 0.5
    kinds = [_KINDS[k] for k in torch.randint(len(_KINDS), (count,), generator=generator).tolist()]
    lined = torch.rand(count, generator=generator) < 0.3
    out: list[Tensor] = []
    for i, (picture, kind) in enumerate(zip(plain, kinds, strict=True)):
        if lined[i] and contents is not None:
            out.append(_lines(named()[contents[i], _ink()].float() / 255, generator))
        else:
            out.append(kind(picture, generator))
    return torch.stack(out).clamp(0, 1) * 2 - 1


@cache
def _ink() -> int:
    return next(place for place, style in enumerate(STYLES) if style.looks == "ink")


def _as_it_is(picture: Tensor, generator: torch.Generator) -> Tensor:
    return picture


def _turned(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Colours mixed by a random matrix whose rows sum to one, so that greys stay grey."""
    mix = torch.rand(3, 3, generator=generator) * 2.4 - 0.7
    mix = mix + (1 - mix.sum(1, keepdim=True)) / 3
    return (mix @ picture.flatten(1)).view_as(picture)


def _mapped(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Tones in three to six random colours, with soft or hard steps."""
    count = int(torch.randint(3, 7, (1,), generator=generator))
    table = torch.rand(count, 3, generator=generator)
    place = luminance(picture)[0] * (count - 1)
    if float(torch.rand(1, generator=generator)) < 0.5:
        return table[place.round().long()].movedim(-1, 0)
    low = place.floor().long().clamp(max=count - 2)
    return torch.lerp(table[low], table[low + 1], (place - low)[..., None]).movedim(-1, 0)


def _tiled(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Tiles of 2 or 8 pixels, with or without joints of a random tone."""
    cell = (2, 8)[int(torch.randint(2, (1,), generator=generator))]
    wide = F.avg_pool2d(picture[None], cell)[0].repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    joint = (torch.arange(wide.shape[-1]) % 8 == 0).float()
    joint = 1 - (1 - joint)[:, None] * (1 - joint)[None]
    return torch.lerp(wide, torch.rand(3, 1, 1, generator=generator).expand_as(wide), joint * 0.5)


def _lines(ink: Tensor, generator: torch.Generator) -> Tensor:
    """The strokes of an ink drawing in random colours on a random ground, with a wash or a glow."""
    stroke = ((_LUMA_STROKE + 0.2 - luminance(ink[:3])) / 0.35).clamp(0, 1)
    line, ground, other = torch.rand(3, 3, 1, 1, generator=generator)
    ground = ground * 0.9 if float(torch.rand(1, generator=generator)) < 0.5 else 1 - (1 - ground) * 0.5
    soft = F.avg_pool2d(F.avg_pool2d(stroke[None], 5, 1, 2), 5, 1, 2)[0]
    glow = float(torch.rand(1, generator=generator)) * soft
    below = torch.lerp(ground.expand_as(ink[:3]), other.expand_as(ink[:3]), glow)
    return torch.lerp(below, line.expand_as(below), stroke)


_KINDS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (_as_it_is, _as_it_is, _turned, _mapped, _tiled)


def _colors(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) random grounds in [0, 1], pale ones most."""
    color = torch.rand(count, 3, generator=generator)
    pale = torch.rand(count, 1, generator=generator) < 0.7
    return torch.where(pale, 0.6 + 0.4 * color, 0.7 * color)


def _mirrored(pictures: Tensor, generator: torch.Generator) -> Tensor:
    turn = torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5
    return torch.where(turn, pictures.flip(-1), pictures)
