"""Makes `pictures.npz` and LICENCES.md from the npm packages of the emoji sets.

    pip install resvg_py==0.5.0
    python -m benchmarks.art_world.draw

Packages that are not in the cache folder are taken with `npm pack`. Names are those of Noto Emoji, and a name without
its marks is the same in all sets that are used. Styles that are sets stand as they are, with alpha; restylings are made
of the flat set at 256 x 256 and averaged down to 64 x 64.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .names import CONTENTS, NAMELESS, STYLES
from .pictures import PATH, SIZE, indexed
from .restyle import HANDS, RESTYLINGS
from .sets import ALIKE, SETS, Drawings, Renderer

LICENCES = PATH.with_name("LICENCES.md")


def wanted() -> Iterator[tuple[str, str]]:
    """Every picture as a style or set and a subject. Of novel subjects and novel styles only what is judged."""
    known = [entry.looks for entry in CONTENTS if entry.split == "known"]
    for style in STYLES:
        yield from ((style.looks, content.looks) for content in CONTENTS)
    for name in (*HANDS, "ink"):
        if any(style.looks == name and style.split == "known" for style in STYLES):
            yield from ((name, subject) for subject in NAMELESS.split())
    for name in ALIKE:
        yield from ((name, subject) for subject in (*known, *NAMELESS.split()))


def picture(style: str, subject: str, sets: dict[str, Drawings], renderer: Renderer) -> Tensor:
    """(4, SIZE, SIZE), premultiplied, in [0, 1]."""
    if style in RESTYLINGS:
        opaque = RESTYLINGS[style](sets[HANDS["flat"]].draw(subject, renderer))
        fine = torch.cat([opaque, torch.ones_like(opaque[:1])])
    else:
        fine = sets[HANDS.get(style, style)].draw(subject, renderer)
    return F.adaptive_avg_pool2d(fine[None], SIZE)[0].clamp(0, 1)


def packed(folder: Path) -> dict[str, Drawings]:
    """All sets, from packages in a folder or, where they are not there yet, from npm."""
    npm = shutil.which("npm")
    folder.mkdir(parents=True, exist_ok=True)
    for emoji_set in SETS.values():
        if not (folder / emoji_set.archive).exists():
            assert npm, f"{folder} lacks {emoji_set.archive}, and there is no npm to take it with"
            subprocess.run([npm, "pack", "--silent", emoji_set.spec], cwd=folder, check=True)
    return {name: Drawings(emoji_set, folder) for name, emoji_set in SETS.items()}


def licences() -> str:
    """The text of LICENCES.md."""
    rows = [
        f"| {s.title} | {s.author} | [{s.licence}]({s.licence_link}) | [source]({s.link}), npm `{s.spec}` |"
        for s in SETS.values()
    ]
    made = ", ".join(f"`{name}`" for name in RESTYLINGS)
    hands = ", ".join(f"`{name}` is {SETS[of].title}" for name, of in HANDS.items())
    others = ", ".join(SETS[name].title for name in ALIKE)
    return "\n".join(
        [
            "# Whose drawings these are",
            "",
            "`pictures.npz` holds drawings of these sets at 64 x 64 pixels, in few colours. They stay under their",
            "artists' licences; what was changed is the size, the number of colours and, in restylings, the look.",
            "",
            "| set | author | licence | where from |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Styles that are a set: {hands}.",
            "",
            f"Restylings of {SETS[HANDS['flat']].title} (`restyle.py`), under its licence: {made}.",
            "",
            f"Used without a name: {others}.",
            "",
        ]
    )


def main() -> None:
    """Draws everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/art_world"), help="folder of the npm packages")
    options = parser.parse_args()
    renderer = cast(Renderer, importlib.import_module("resvg_py"))
    sets, pairs = packed(options.cache), list(wanted())
    parts = [indexed(picture(style, subject, sets, renderer)) for style, subject in pairs]
    colors, palettes, alphas = (np.stack(column) for column in zip(*parts, strict=True))
    keys = np.array([f"{style}/{subject}" for style, subject in pairs])
    np.savez_compressed(PATH, keys=keys, colors=colors, palettes=palettes, alphas=alphas)
    LICENCES.write_text(licences(), encoding="utf-8")
    sys.stdout.write(f"{len(pairs)} drawings, {PATH.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
