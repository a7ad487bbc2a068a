"""Pictures of the world: 32 x 32, a content in a style, at a random place, size and slight rotation.

`python -m benchmarks.shapes_world.render --sheet sheet.png` draws every content in every style.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .looks import FINE, ground_table, outline_table, palette_table, texture_table
from .names import CONTENTS, SPLITS, STYLES, Entry
from .shapes import REACH, distance_table

SIZE = 32  # of a picture, in pixels
CHUNK = 128  # pictures at a time: what stays in the cache


@dataclass(frozen=True)
class Pose:
    """Where shapes stand: centre in pixels from the middle, radius in pixels, rotation in radians, each (n,)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor


@dataclass(frozen=True)
class Scene:
    """What pictures are made of, one row each; mixing rows of several styles gives styles that do not exist."""

    distance: Tensor  # (n, SIDE, SIDE)
    texture: Tensor  # (n, SIDE, SIDE)
    ground: Tensor  # (n, FINE, FINE)
    palette: Tensor  # (n, 4, 3)
    outline: Tensor  # (n, 5)


def render(contents: Tensor, styles: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures of contents (n,) in styles (n,), both labels: (n, 3, 32, 32) in [-1, 1]."""
    poses = draw_poses(len(contents), generator)
    chunks = [
        paint(scene(contents[part], styles[part]), replace(poses, **{k: v[part] for k, v in vars(poses).items()}))
        for part in (slice(start, start + CHUNK) for start in range(0, len(contents), CHUNK))
    ]
    return torch.cat(chunks) if chunks else torch.empty(0, 3, SIZE, SIZE)


def draw_poses(count: int, generator: torch.Generator) -> Pose:
    """Random poses: up to 2 pixels off the middle, radius 9.5 to 11.5 pixels, up to 10 degrees either way."""
    draws = torch.rand(4, count, generator=generator) * 2 - 1
    return Pose(2 * draws[0], 2 * draws[1], 10.5 + draws[2], math.radians(10) * draws[3])


def scene(contents: Tensor, styles: Tensor) -> Scene:
    """The rows of the tables for contents (n,) and styles (n,)."""
    return Scene(
        distance_table()[contents],
        texture_table()[styles],
        ground_table()[styles],
        palette_table()[styles],
        outline_table()[styles],
    )


def paint(what: Scene, pose: Pose) -> Tensor:
    """Pictures at twice the size with soft edges, averaged: (n, 3, 32, 32) in [-1, 1]."""
    cos, sin = torch.cos(pose.angle), torch.sin(pose.angle)
    unit = SIZE / 2 / (pose.radius * REACH)  # from half pictures to half tables
    left, top = pose.x / (pose.radius * REACH), pose.y / (pose.radius * REACH)
    to_table = torch.stack(
        [
            torch.stack([cos * unit, sin * unit, -(cos * left + sin * top)], 1),
            torch.stack([-sin * unit, cos * unit, sin * left - cos * top], 1),
        ],
        1,
    )  # (n, 2, 3)
    grid = F.affine_grid(to_table, [len(cos), 1, FINE, FINE], align_corners=False)
    tables = torch.stack([what.distance, what.texture], 1)
    sampled = F.grid_sample(tables, grid, padding_mode="border", align_corners=False)
    distance, texture = sampled[:, :1], sampled[:, 1:]  # (n, 1, FINE, FINE)
    soft = (pose.radius * (FINE / SIZE)).view(-1, 1, 1, 1)  # fine pixels to a radius
    fill, accent, back, back_accent = what.palette[..., None, None].unbind(1)  # (n, 3, 1, 1)
    inner, outer = what.outline[:, 0].view(-1, 1, 1, 1), what.outline[:, 1].view(-1, 1, 1, 1)
    picture = torch.lerp(back, back_accent, what.ground[:, None])
    line = what.outline[:, 2:, None, None]
    picture = torch.where(outer > 0, torch.lerp(picture, line, _inside(distance - outer, soft)), picture)
    picture = torch.lerp(picture, torch.lerp(fill, accent, texture), _inside(distance - inner, soft))
    return F.avg_pool2d(picture, FINE // SIZE)


def _inside(distance: Tensor, soft: Tensor) -> Tensor:
    return (0.5 - distance * soft).clamp(0, 1)


def sheet(scale: int = 3, seed: int = 0) -> Image.Image:
    """Every content (down) in every style (across), enlarged, with names; gaps stand between the splits."""
    generator = torch.Generator().manual_seed(seed)
    cell, margin, head = SIZE * scale + 6, 134, 44
    across, down = _offsets(STYLES, cell), _offsets(CONTENTS, cell)
    canvas = Image.new("RGB", (margin + across[-1] + cell + 6, head + down[-1] + cell + 6), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for style, x in zip(STYLES, across, strict=True):
        draw.text((margin + x + cell / 2, head / 2), _caption(style, "\n"), "black", font, "mm", align="center")
    for content, y in zip(CONTENTS, down, strict=True):
        draw.text((8, head + y + cell / 2), _caption(content, " "), "black", font, "lm")
    styles = torch.arange(len(STYLES))
    for label, y in enumerate(down):
        for picture, x in zip(render(torch.full_like(styles, label), styles, generator), across, strict=True):
            canvas.paste(as_image(picture, scale), (margin + x, head + y))
    return canvas


def as_image(picture: Tensor, scale: int = 1) -> Image.Image:
    """A picture (3, h, w) in [-1, 1] as an image, every pixel `scale` times as large."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    image = Image.fromarray(pixels.numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _offsets(entries: tuple[Entry, ...], cell: int) -> list[int]:
    """Where the cells start: 12 pixels more for each split before."""
    return [place * cell + 12 * SPLITS.index(entry.split) for place, entry in enumerate(entries)]


def _caption(entry: Entry, between: str) -> str:
    return entry.name if entry.split == "known" else f"{entry.name}{between}({entry.looks})"


def main() -> None:
    """Writes the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, required=True, help="picture file to write")
    sheet().save(parser.parse_args().sheet)


if __name__ == "__main__":
    main()
