"""Nameless pictures: shapes and styles of no word, so that the base model knows more of pictures than its words.

A concept LoRA then has to find its concept in what the base can paint already, as on a large model, and need not teach
it to paint. Everything is random or mixed from known entries: no novel content and no novel style is used.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .looks import outline_table
from .names import CONTENTS, STYLES, labels
from .render import Scene, draw_poses, paint, scene
from .shapes import SIDE, distance_table, plane


def nameless(contents: Tensor, styles: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (n, 3, 32, 32) of known contents and styles, both (n,); a label of -1 asks for a random one."""
    named = scene(contents.clamp(min=0), styles.clamp(min=0))
    strange = _strange(len(contents), generator)
    no_content, no_style = (contents < 0).view(-1, 1, 1), (styles < 0).view(-1, 1, 1)
    what = Scene(
        distance=torch.where(no_content, strange.distance, named.distance),
        texture=torch.where(no_style, strange.texture, named.texture),
        ground=torch.where(no_style, strange.ground, named.ground),
        palette=torch.where(no_style, strange.palette, named.palette),
        outline=torch.where(no_style[:, :, 0], strange.outline, named.outline),
    )
    return paint(what, draw_poses(len(contents), generator))


def _strange(count: int, generator: torch.Generator) -> Scene:
    known = torch.tensor(labels(CONTENTS, "known")), torch.tensor(labels(STYLES, "known"))
    contents, styles, seconds = (
        table[torch.randint(len(table), (count,), generator=generator)] for table in (known[0], known[1], known[0])
    )
    what = scene(contents, styles)
    return replace(
        what,
        distance=_shapes(what.distance, distance_table()[seconds], generator),
        texture=_textures(what.texture, generator),
        palette=_palettes(count, generator),
        outline=_outlines(count, generator),
    )


def _shapes(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Stars of random rays, smooth or sharp, and known shapes turned, joined or cut by others: (n, SIDE, SIDE)."""
    count = len(first)
    x, y = plane()
    angle, radius = torch.atan2(y, x), torch.hypot(x, y)
    waves = torch.arange(1, 7).view(1, -1, 1, 1)
    size = torch.rand(count, 6, 1, 1, generator=generator) * (0.45 / waves)
    phase = 2 * math.pi * torch.rand(count, 6, 1, 1, generator=generator)
    smooth = radius - (0.72 + (size * torch.cos(waves * angle + phase)).sum(1))
    corners = _corners(count, angle, radius, generator)
    turned = _moved(first, generator)
    joined = torch.minimum(turned, _moved(second, generator))
    cut = torch.maximum(turned, -_moved(second, generator))
    kinds = torch.stack([smooth, corners, turned, joined, cut])
    return kinds[torch.randint(len(kinds), (count,), generator=generator), torch.arange(count)]


def _corners(count: int, angle: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
    """Radii at 12 directions, joined by straight lines in the angle: (n, SIDE, SIDE)."""
    radii = 0.35 + 0.75 * torch.rand(count, 12, generator=generator)
    place = (angle + math.pi) / (2 * math.pi) * 12
    below = place.long() % 12
    edge = torch.lerp(radii[:, below], radii[:, (below + 1) % 12], place - place.floor())
    return (radius - edge) * 0.8


def _moved(tables: Tensor, generator: torch.Generator) -> Tensor:
    """Tables (n, SIDE, SIDE) turned by any angle, mirrored, scaled and shifted."""
    count = len(tables)
    turn = 2 * math.pi * torch.rand(count, generator=generator)
    zoom = 0.9 + 0.5 * torch.rand(count, generator=generator)
    mirror = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    shift = torch.rand(count, 2, generator=generator) * 0.5 - 0.25
    rows = torch.stack(
        [
            torch.stack([turn.cos() * zoom * mirror, turn.sin() * zoom, shift[:, 0]], 1),
            torch.stack([-turn.sin() * zoom * mirror, turn.cos() * zoom, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows, [count, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(tables[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _textures(known: Tensor, generator: torch.Generator) -> Tensor:
    """Known textures moved, and two warped waves, alone or combined: (n, SIDE, SIDE) in [0, 1]."""
    count = len(known)
    first, second = _waves(count, generator), _waves(count, generator)
    moved = _moved(known, generator)
    kinds = torch.stack([moved, first, first, first * second, torch.maximum(first, second), (first - second).abs()])
    return kinds[torch.randint(len(kinds), (count,), generator=generator), torch.arange(count)]


def _waves(count: int, generator: torch.Generator) -> Tensor:
    """Stripes, rings and rays, bent by a second wave, with hard or soft edges: (n, SIDE, SIDE)."""
    x, y = plane()

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    turn, bend, fast = draw(0, 2 * math.pi), draw(0, 1), draw(4, 11)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    rings = torch.hypot(x - draw(-0.5, 0.5), y - draw(-0.5, 0.5))
    way = torch.where(draw(0, 1) < 0.75, along, rings)
    bent = way + (draw(0, 1) < 0.5) * bend * 0.2 * torch.sin(draw(4, 9) * across + turn)
    spokes = torch.sin(draw(2, 8).round() * torch.atan2(y, x) + turn)
    wave = torch.where(draw(0, 1) < 0.85, torch.sin(fast * 1.3 * bent + draw(0, 6)), spokes)
    hard = torch.where(draw(0, 1) < 0.6, draw(5, 8), draw(0.5, 1.5))
    return ((wave + draw(-0.5, 0.5)) * hard + 0.5).clamp(0, 1)


def _palettes(count: int, generator: torch.Generator) -> Tensor:
    """Four colours: any for the shape, and a background that stands off it: (n, 4, 3) in [-1, 1]."""
    tries = torch.rand(6, count, 4, 3, generator=generator) * 2 - 1
    near = torch.rand(6, count, 1, 1, generator=generator) * 0.7
    tries[:, :, 3:] = torch.lerp(tries[:, :, 2:3], tries[:, :, 3:], near)  # grounds are quiet
    apart = (tries[:, :, :2].mean(2) - tries[:, :, 2:].mean(2)).abs().mean(2)  # (6, n)
    return tries[apart.argmax(0), torch.arange(count)]


def _outlines(count: int, generator: torch.Generator) -> Tensor:
    """None, or one of the known widths in a dark, white or random colour: (n, 5)."""
    known = outline_table()[torch.tensor(labels(STYLES, "known"))]
    outlines = known[torch.randint(len(known), (count,), generator=generator)].clone()
    other = torch.rand(count, generator=generator) < 0.3
    outlines[other, 2:] = torch.rand(count, 3, generator=generator)[other] * 2 - 1
    return outlines
