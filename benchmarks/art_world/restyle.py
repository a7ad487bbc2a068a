"""Exact restylings: what a drawing looks like as ink lines, neon, tiles and so on. All are functions of one drawing.

Drawings are (4, side, side), premultiplied RGB and alpha in [0, 1]; results are opaque (3, side, side) unless said
otherwise. Lengths are in shares of the side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = torch.tensor([0.299, 0.587, 0.114])


def rgb(code: str) -> Tensor:
    """(3, 1, 1) in [0, 1] of a hexadecimal colour."""
    return torch.tensor(list(bytes.fromhex(code))).view(3, 1, 1) / 255


def over(drawing: Tensor, ground: Tensor) -> Tensor:
    """The drawing on a ground (3, 1, 1) or (3, side, side)."""
    return drawing[:3] + (1 - drawing[3:]) * ground


def luminance(picture: Tensor) -> Tensor:
    """(1, side, side) of (3, side, side)."""
    return (LUMA.view(3, 1, 1) * picture).sum(0, keepdim=True)


def blurred(x: Tensor, radius: float) -> Tensor:
    """Three box means of a radius, which come near to a Gaussian."""
    reach = max(1, round(radius * x.shape[-1]))
    for _ in range(3):
        padded = F.pad(x[None], (reach,) * 4, mode="replicate")
        x = F.avg_pool2d(F.avg_pool2d(padded, (2 * reach + 1, 1), 1), (1, 2 * reach + 1), 1)[0]
    return x


def grown(x: Tensor, radius: float) -> Tensor:
    """The largest value within a square of a radius."""
    reach = max(1, round(radius * x.shape[-1]))
    tall = F.max_pool2d(x[None], (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(tall, (1, 2 * reach + 1), 1, (0, reach))[0]


def lines(drawing: Tensor, width: float = 0.011) -> Tensor:
    """(1, side, side) in [0, 1]: where colours or the outline change, as strokes of a half width."""
    seen = torch.cat([blurred(over(drawing, rgb("FFFFFF")), 0.004), blurred(over(drawing, rgb("808080")), 0.004)])
    step = max(1, seen.shape[-1] // 128)
    padded = F.pad(seen[None], (step,) * 4, mode="replicate")[0]
    across = padded[:, step:-step, 2 * step :] - padded[:, step:-step, : -2 * step]
    down = padded[:, 2 * step :, step:-step] - padded[:, : -2 * step, step:-step]
    change = torch.hypot(across, down).amax(0, keepdim=True)
    thin = (change > 0.13) & (change >= 0.6 * grown(change, 0.012))
    return blurred(grown(thin.float(), width), 0.002)


def levels(value: Tensor, count: int) -> Tensor:
    """[0, 1] in so many equal steps."""
    return ((value * count).floor() / (count - 1)).clamp(0, 1)


def tinted(value: Tensor, *colors: Tensor) -> Tensor:
    """Colours (3, 1, 1) from dark to light by a value (1, side, side) in [0, 1]."""
    place = value.clamp(0, 1) * (len(colors) - 1)
    parts = [(1 - (place - at).abs()).clamp(min=0) * color for at, color in enumerate(colors)]
    return torch.stack(parts).sum(0)


def vivid(drawing: Tensor) -> Tensor:
    """(3, side, side): the drawing's own colours, brought to full brightness and spread beyond its edges."""
    weight = blurred(drawing[3:], 0.02) + 1e-3
    color = blurred(drawing[:3], 0.02) / weight
    color = color - 0.75 * color.amin(0, keepdim=True)
    return color / color.amax(0, keepdim=True).clamp(min=0.12)


def ink(drawing: Tensor) -> Tensor:
    """Dark lines and a wash of grey on paper."""
    shade = 1 - luminance(over(drawing, rgb("FFFFFF")))
    paper = rgb("F6ECD4") - 0.30 * (shade > 0.62)
    stroke = lines(drawing)
    return paper * (1 - stroke) + rgb("1D1B26") * stroke


def neon(drawing: Tensor) -> Tensor:
    """Glowing outlines in the drawing's colours on black."""
    stroke = lines(drawing, 0.008)
    glow = vivid(drawing)
    light = 0.9 * blurred(stroke, 0.035) * glow + stroke * (0.25 + 0.75 * glow)
    return (rgb("0B0A18") + light).clamp(0, 1)


def mosaic(drawing: Tensor, tiles: int = 16) -> Tensor:
    """Square tiles of the mean colour with a dark joint between them."""
    flat = over(drawing, rgb("9FBAC4"))
    cell = flat.shape[-1] // tiles
    tile = levels(F.avg_pool2d(flat[None], cell), 9)[0]
    place = torch.arange(flat.shape[-1]) % cell
    joint = (place < cell // 4).float()
    joint = 1 - (1 - joint)[:, None] * (1 - joint)[None]
    wide = tile.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return wide * (1 - 0.38 * joint)


def duotone(drawing: Tensor) -> Tensor:
    """A print in violet and red on peach paper, in four tones; white parts are a light red, not paper."""
    value = levels(0.74 * luminance(drawing[:3] / drawing[3:].clamp(min=1e-3)) ** 0.9, 4)
    inside = tinted(value, rgb("3B1C71"), rgb("D7456F"), rgb("FFD7A8"))
    return over(torch.cat([inside * drawing[3:], drawing[3:]]), rgb("FFE0B5"))


def woodcut(drawing: Tensor) -> Tensor:
    """Black, brick red and cream, with cut lines over the middle tone."""
    light = luminance(over(drawing, rgb("FFFFFF")))
    side = light.shape[-1]
    rows = (torch.arange(side) // max(1, side // 32)) % 2 == 0
    middle = torch.where(rows.view(1, -1, 1), rgb("C8402A"), rgb("F3E3C3"))
    inside = torch.where(light < 0.42, rgb("1A1413"), torch.where(light < 0.68, rgb("C8402A"), middle))
    inside = torch.where(light > 0.86, rgb("F3E3C3"), inside)
    body, stroke = over(torch.cat([inside * drawing[3:], drawing[3:]]), rgb("C8402A")), lines(drawing, 0.007)
    return body * (1 - stroke) + rgb("1A1413") * stroke


def glass(drawing: Tensor) -> Tensor:
    """Stained glass: few full colours, lead between them, a bright pane behind."""
    panes = levels(blurred(over(torch.cat([_saturated(drawing), drawing[3:]]), rgb("BFE8DC")), 0.008), 5)
    lead = lines(drawing, 0.014)
    return panes * (1 - lead) + rgb("20242C") * lead


def chalk(drawing: Tensor) -> Tensor:
    """Broken pale lines and strokes of colour on a green board."""
    side = drawing.shape[-1]
    axis = torch.arange(side) / side
    strokes = ((axis[:, None] - axis[None]) * 16 % 1 < 0.45).float()
    gaps = ((axis[:, None] + 0.6 * axis[None]) * 11 % 1 > 0.18).float()
    dust = drawing[3:] * (0.18 + 0.5 * blurred(strokes[None], 0.004))
    stroke = lines(drawing, 0.011) * blurred(gaps[None], 0.004)
    board = rgb("22443A")
    dusted = board * (1 - dust) + (0.35 + 0.65 * vivid(drawing)) * dust
    return dusted * (1 - stroke) + rgb("F4F1E4") * stroke


def gold(drawing: Tensor) -> Tensor:
    """A relief in gold on deep red, lit from above left."""
    height = blurred(0.55 * drawing[3:] + 0.45 * luminance(drawing[:3]), 0.012)
    step = max(1, height.shape[-1] // 64)
    slope = height - torch.roll(height, (step, step), (1, 2))
    light = (0.5 + 2.0 * slope).clamp(0, 1)
    metal = tinted(light, rgb("4A2500"), rgb("D9A02C"), rgb("FFF6C8"))
    return over(torch.cat([metal * drawing[3:], drawing[3:]]), rgb("6E1423"))


def blueprint(drawing: Tensor) -> Tensor:
    """White lines and hatching on squared blue paper."""
    side = drawing.shape[-1]
    axis = torch.arange(side)
    square = ((axis % (side // 8)) < side // 64).float()
    paper = rgb("1C4FA8") + 0.10 * torch.maximum(square[:, None], square[None])
    hatch = (((axis[:, None] + axis[None]) % (side // 12)) < side // 40).float()
    shade = luminance(over(drawing, rgb("FFFFFF"))) < 0.6
    paper = paper + 0.28 * hatch * shade * drawing[3:]
    stroke = lines(drawing, 0.007)
    return (paper * (1 - stroke) + rgb("F3F8FF") * stroke).clamp(0, 1)


def _saturated(drawing: Tensor) -> Tensor:
    mean = luminance(drawing[:3])
    return (mean + 1.6 * (drawing[:3] - mean)).clamp(0, 1).minimum(drawing[3:])


RESTYLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "ink": ink,
    "neon": neon,
    "mosaic": mosaic,
    "duotone": duotone,
    "woodcut": woodcut,
    "glass": glass,
    "chalk": chalk,
    "gold": gold,
    "blueprint": blueprint,
}
"""All of the flat hand's drawings."""
HANDS = {"flat": "twemoji", "clay": "fluent", "comic": "openmoji"}
"""Styles that are a set as it is, which stands on any background."""
