"""The emoji sets: who drew them, under which licence they may be passed on, and one drawing by its name as RGBA."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FINE = 256
"""Side of a drawing before it is restyled and averaged down."""


@dataclass(frozen=True)
class EmojiSet:
    """A set as its npm package `@iconify-json/<package>` gives it.

    Attributes:
        version: of the package, pinned: another one may hold other drawings
        margin: added on every side, as a share of the drawing's, so that drawings of all sets are about as large
        link: where the artists publish it
    """

    package: str
    version: str
    title: str
    author: str
    licence: str
    licence_link: str
    link: str
    margin: float

    @property
    def spec(self) -> str:
        """What `npm pack` is asked for."""
        return f"@iconify-json/{self.package}@{self.version}"

    @property
    def archive(self) -> str:
        """What `npm pack` calls the file."""
        return f"iconify-json-{self.package}-{self.version}.tgz"


_CC_BY = ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
_CC_BY_SA = ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
_APACHE = ("Apache 2.0", "https://github.com/googlefonts/noto-emoji/blob/main/svg/LICENSE")
_MIT = ("MIT", "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE")

SETS = {
    "twemoji": EmojiSet(
        "twemoji", "1.2.5", "Twemoji", "Twitter and contributors", *_CC_BY, "https://github.com/jdecked/twemoji", 0.08
    ),
    "fluent": EmojiSet(
        "fluent-emoji", "1.2.7", "Fluent Emoji", "Microsoft", *_MIT, "https://github.com/microsoft/fluentui-emoji", 0.03
    ),
    "openmoji": EmojiSet(
        "openmoji", "1.2.29", "OpenMoji", "OpenMoji", *_CC_BY_SA, "https://github.com/hfg-gmuend/openmoji", -0.06
    ),
    "noto": EmojiSet(
        "noto", "1.2.9", "Noto Emoji", "Google", *_APACHE, "https://github.com/googlefonts/noto-emoji", 0.06
    ),
    "noto_v1": EmojiSet(
        "noto-v1", "1.2.5", "Noto Emoji (v1)", "Google", *_APACHE, "https://github.com/googlefonts/noto-emoji", 0.06
    ),
    "emojione": EmojiSet(
        "emojione-v1", "1.2.3", "Emoji One (v1)", "Emoji One", *_CC_BY_SA,
        "https://github.com/joypixels/emojione-legacy", 0.06,
    ),
}  # fmt: skip


ALIKE = ("noto", "noto_v1", "emojione")
"""Sets that look much like others at this size: no styles, but drawings for nameless pictures."""


class Renderer(Protocol):
    """resvg: an SVG's PNG bytes."""

    def svg_to_bytes(self, *, svg_string: str, width: int, height: int, skip_system_fonts: bool) -> bytes: ...


class Drawings:
    """All drawings of one set, from its package in a folder."""

    def __init__(self, emoji_set: EmojiSet, folder: Path):
        self._path = folder / emoji_set.archive
        self._margin = emoji_set.margin

    @cached_property
    def _icons(self) -> Mapping[str, Any]:
        with tarfile.open(self._path) as archive:
            member = archive.extractfile("package/icons.json")
            assert member is not None, f"{self._path} holds no icons.json"
            return json.load(member)

    @cached_property
    def _by_plain_name(self) -> Mapping[str, str]:
        names = [*self._icons["icons"], *self._icons.get("aliases", {})]
        return {plain(name): name for name in reversed(names)}

    def svg(self, name: str) -> str:
        """One drawing.

        Raises:
            KeyError: the set has none of this name
        """
        icons, entry = self._icons, self._by_plain_name[plain(name)]
        while entry not in icons["icons"]:
            entry = icons["aliases"][entry]["parent"]
        icon = icons["icons"][entry]
        left, top, width, height = (
            icon.get(key, icons.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        around = self._margin * max(width, height)
        left, top, width, height = left - around, top - around, width + 2 * around, height + 2 * around
        head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        box = f'viewBox="{left} {top} {width} {height}" width="{FINE}" height="{FINE}"'
        return f"<svg {head} {box}>{icon['body']}</svg>"

    def draw(self, name: str, renderer: Renderer) -> Tensor:
        """(4, FINE, FINE), premultiplied RGB and alpha in [0, 1]; raises as `svg`."""
        png = renderer.svg_to_bytes(svg_string=self.svg(name), width=FINE, height=FINE, skip_system_fonts=True)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=np.float32) / 255
        rgba = torch.from_numpy(pixels).movedim(-1, 0)
        return torch.cat([rgba[:3] * rgba[3:], rgba[3:]])


def plain(name: str) -> str:
    """A name without the marks in which sets differ: "t-shirt" and "tshirt" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
