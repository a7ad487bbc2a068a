"""One row for each block: charts drawn into boxes of one height stand side by side with their rows in line."""

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Box

_SHORT = {
    "down_blocks": "down",
    "mid_block": "mid",
    "up_blocks": "up",
    "attentions": "attn",
    "resnets": "res",
    "downsamplers": "resize",
    "upsamplers": "resize",
}


def block_label(name: str) -> str:
    """A block's name in short: "down_blocks.2.attentions.0" becomes "down 2 · attn 0"."""
    label = ""
    for part in name.split("."):
        label += f" {part}" if part.isdigit() else f" · {_SHORT.get(part, part)}"
    return label.removeprefix(" · ")


@dataclass(frozen=True)
class BlockRows:
    """Where the rows lie: a head for names above `body`, and room for the numbers of an axis below it."""

    head: Box
    body: Box
    rows: Sequence[Box]
    text: int  # height of the text in a row

    @property
    def label_every(self) -> int:
        """Rows too low for text: only every second, third, … is labelled."""
        return -(-self.text // max(1, int(self.body.height / max(1, len(self.rows)))))


def block_rows(box: Box, count: int, px: int) -> BlockRows:
    """As many rows as blocks, as high as they fit into the box and at most 2.2 lines of text."""
    head, body = box.cut_top(px * 1.9)
    body = body.inset(0, 0, 0, small_text(px) * 1.7)
    height = min(body.height / max(1, count), px * 2.2)
    body, _ = body.cut_top(height * count)
    rows = [Box(body.left, body.top + i * height, body.right, body.top + (i + 1) * height) for i in range(count)]
    return BlockRows(head, body, rows, round(min(px, max(8, height * 0.75))))


def small_text(px: int) -> int:
    """Height of the numbers on an axis, beside text of `px`."""
    return max(8, round(px * 0.8))
