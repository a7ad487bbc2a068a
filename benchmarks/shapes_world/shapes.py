"""The contents as distance fields: one table, computed once, that pictures sample at their own pose."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .names import CONTENTS

SIDE = 128  # of every table
REACH = 1.75  # a table covers [-REACH, REACH] in both directions; a shape fills about [-1, 1]

Points = list[tuple[float, float]]


@cache
def plane() -> tuple[Tensor, Tensor]:
    """x to the right and y up at every entry of a table, each (SIDE, SIDE)."""
    axis = torch.linspace(-REACH, REACH, SIDE)
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    return x, y


@cache
def distance_table() -> Tensor:
    """Signed distance to every content's edge, negative inside, in units of its radius: (contents, SIDE, SIDE)."""
    return torch.stack([_SHAPES[content.looks]() for content in CONTENTS])


def polygon(points: Points, rounding: float = 0.05) -> Tensor:
    """Exact signed distance to a simple polygon with rounded corners: (SIDE, SIDE)."""
    x, y = plane()
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        nearest = torch.minimum(nearest, segment(ax, ay, bx, by))
        if ay != by:
            inside ^= ((y < ay) != (y < by)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return torch.where(inside, -nearest, nearest) - rounding


def segment(ax: float, ay: float, bx: float, by: float) -> Tensor:
    """Distance to the segment from a to b: (SIDE, SIDE)."""
    x, y = plane()
    dx, dy = bx - ax, by - ay
    along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(x - ax - along * dx, y - ay - along * dy)


def circle(x: float, y: float, radius: float) -> Tensor:
    """Signed distance to a circle: (SIDE, SIDE)."""
    px, py = plane()
    return torch.hypot(px - x, py - y) - radius


def box(x0: float, y0: float, x1: float, y1: float) -> Tensor:
    """Signed distance to an upright rectangle: (SIDE, SIDE)."""
    return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def curve(point: Callable[[float], tuple[float, float]], start: float = 0, end: float = 2 * math.pi) -> Points:
    """Points of a closed parametric curve."""
    return [point(start + (end - start) * step / 72) for step in range(72)]


def _star() -> Tensor:
    corners = [(math.pi / 2 + k * math.pi / 5, 1.08 if k % 2 == 0 else 0.46) for k in range(10)]
    return polygon([(r * math.cos(a), r * math.sin(a) - 0.06) for a, r in corners])


def _heart() -> Tensor:
    def point(t: float) -> tuple[float, float]:
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 0.98 * math.sin(t) ** 3, height / 16 + 0.12

    return polygon(curve(point))


def _flower() -> Tensor:
    turns = [math.pi / 2 + k * 2 * math.pi / 5 for k in range(5)]
    petals = [circle(0.58 * math.cos(a), 0.58 * math.sin(a), 0.37) for a in turns]
    return torch.stack([*petals, circle(0, 0, 0.45)]).amin(0)


def _drop() -> Tensor:
    tangent = 0.52  # where the straight sides leave the circle, in radians above its equator
    round_part = [(0.6 * math.cos(a), 0.6 * math.sin(a) - 0.38) for a in _arc(math.pi - tangent, 2 * math.pi + tangent)]
    return polygon([(0.0, 1.02), *round_part])


def _fish() -> Tensor:
    body = polygon(curve(lambda t: (0.68 * math.cos(t) + 0.3, 0.52 * math.sin(t))))
    return torch.minimum(body, polygon([(-0.2, 0.0), (-0.95, 0.62), (-0.78, 0.0), (-0.95, -0.62)]))


def _bunny() -> Tensor:
    ears = torch.minimum(segment(-0.27, 0.0, -0.38, 0.8), segment(0.27, 0.0, 0.38, 0.8)) - 0.19
    return torch.minimum(ears, circle(0, -0.36, 0.62))


def _mushroom() -> Tensor:
    cap = polygon([(math.cos(a), 0.92 * math.sin(a)) for a in _arc(0, math.pi)])
    return torch.minimum(cap, box(-0.28, -0.95, 0.28, 0.1))


def _key() -> Tensor:
    bow = circle(-0.48, 0.0, 0.36).abs() - 0.17
    shaft = segment(-0.05, 0.0, 1.0, 0.0) - 0.15
    teeth = torch.minimum(segment(0.92, 0.0, 0.92, -0.42), segment(0.45, 0.0, 0.45, -0.36)) - 0.13
    return torch.minimum(torch.minimum(bow, shaft), teeth)


def _arc(start: float, end: float) -> list[float]:
    return [start + (end - start) * step / 48 for step in range(49)]


_SHAPES: dict[str, Callable[[], Tensor]] = {
    "disc": lambda: circle(0, 0, 0.92),
    "square": lambda: box(-0.76, -0.76, 0.76, 0.76),
    "triangle": lambda: polygon([(0.0, 0.98), (0.98, -0.72), (-0.98, -0.72)]),
    "star": _star,
    "heart": _heart,
    "plus": lambda: torch.minimum(box(-0.95, -0.27, 0.95, 0.27), box(-0.27, -0.95, 0.27, 0.95)),
    "ring": lambda: circle(0, 0, 0.73).abs() - 0.25,
    "moon": lambda: torch.maximum(circle(-0.05, 0, 1.0), -circle(0.5, 0.18, 0.74)),
    "arrow": lambda: polygon(
        [(1.0, 0.0), (0.1, 0.85), (0.1, 0.3), (-0.95, 0.3), (-0.95, -0.3), (0.1, -0.3), (0.1, -0.85)]
    ),
    "diamond": lambda: polygon([(0.0, 1.08), (0.6, 0.0), (0.0, -1.08), (-0.6, 0.0)]),
    "drop": _drop,
    "house": lambda: torch.minimum(
        polygon([(0.0, 0.98), (1.0, 0.12), (0.68, 0.12), (0.68, -0.85), (-0.68, -0.85), (-0.68, 0.12), (-1.0, 0.12)]),
        box(0.4, 0.2, 0.68, 0.95),
    ),
    "bolt": lambda: polygon(
        [(0.3, 1.02), (-0.68, -0.12), (-0.08, -0.12), (-0.34, -1.02), (0.68, 0.24), (0.06, 0.24), (0.52, 1.02)]
    ),
    "pill": lambda: segment(-0.62, 0, 0.62, 0) - 0.42,
    "fish": _fish,
    "flower": _flower,
    "bunny": _bunny,
    "corner": lambda: torch.minimum(box(-0.8, -0.85, -0.2, 0.95), box(-0.8, -0.85, 0.85, -0.3)),
    "hourglass": lambda: polygon(
        [(-0.75, 0.95), (0.75, 0.95), (0.14, 0.0), (0.75, -0.95), (-0.75, -0.95), (-0.14, 0.0)]
    ),
    "mushroom": _mushroom,
    "crown": lambda: polygon(
        [(-0.85, -0.7), (0.85, -0.7), (0.98, 0.7), (0.45, 0.05), (0.0, 0.85), (-0.45, 0.05), (-0.98, 0.7)]
    ),
    "key": _key,
}
