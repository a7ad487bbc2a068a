"""The live preview on the node while it trains."""

from collections.abc import Mapping, Sequence

from PIL import Image

from ..merge.statistics import BlockGates
from .canvas import GRID, INK, Box, Canvas
from .gate_chart import draw_gate_map
from .loss_chart import draw_loss_curve


def training_preview(
    losses: Mapping[str, Sequence[float]],
    blocks: Sequence[BlockGates],
    step: int,
    total_steps: int,
    seconds_left: float | None,
    sample: Image.Image | None = None,
    size: tuple[int, int] = (512, 512),
) -> Image.Image:
    """The picture on the node while it trains: progress, losses so far, a sample if there is one, gates as they are.

    A training without gates, `blocks` empty, shows the sample in their place.
    """
    px = text_px(*size)
    canvas = Canvas(size)
    canvas.card(canvas.box)
    box = canvas.box.inset(px, px, px, px)
    head, body = box.cut_top(px * 2.6)
    left = "" if seconds_left is None or step >= total_steps else f" · {duration(seconds_left)} left"
    canvas.text(head.left, head.top + px * 0.7, f"step {step}/{total_steps}{left}", round(px * 1.2), bold=True)
    bar = Box(head.left, head.top + px * 1.7, head.right, head.top + px * 2.1)
    done = min(1.0, step / max(1, total_steps))
    canvas.rectangle(bar, GRID, radius=bar.height)
    canvas.rectangle(Box(bar.left, bar.top, bar.left + done * bar.width, bar.bottom), INK, radius=bar.height)
    if not blocks and sample is None:
        draw_loss_curve(canvas, body, losses, total_steps, px)
        return canvas.image()
    upper, lower = body.cut_top(body.height * 0.46)
    upper = upper.inset(0, 0, 0, px * 0.4)
    if sample is not None and not blocks:
        canvas.picture(lower, _smooth(sample, round(lower.height)))
    elif sample is not None:
        losses_width = upper.width - min(upper.height, upper.width / 2)
        upper, beside = upper.cut_left(losses_width)
        canvas.picture(beside, _smooth(sample, round(beside.width)))
        upper = upper.inset(0, 0, px * 0.6, 0)
    draw_loss_curve(canvas, upper, losses, total_steps, px)
    if blocks:
        draw_gate_map(canvas, lower, blocks, px)
    return canvas.image()


def duration(seconds: float) -> str:
    """A time span in words short enough for a preview: "12 s", "3 min 20 s", "1 h 05 min"."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _smooth(sample: Image.Image, side: int) -> Image.Image:
    """A preview of few pixels enlarged softly: its hard pixels would hide what it shows."""
    scale = max(1, -(-side // max(sample.size)))
    return sample.resize((sample.width * scale, sample.height * scale), Image.Resampling.BICUBIC)


def text_px(width: int, height: int) -> int:
    """Text height that suits a picture of this size: 13 px at 512 px, 18 px from 900 px on."""
    return max(9, min(18, round(7 + width / 82), round(height / 14)))
