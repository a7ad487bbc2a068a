"""The report sheet: everything about one merge, words first, then the numbers that they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from ..merge.overlap import BlockOverlap
from ..merge.statistics import BlockGates, KindGates
from .canvas import MUTED, STYLE, Box, Canvas, Colour
from .cosine_chart import draw_cosines
from .findings import Finding
from .fonts import wrap
from .gate_chart import draw_gate_map
from .kind_chart import draw_kind_map
from .loss_chart import draw_loss_curve
from .rank_chart import MergerRanks, draw_rank_histogram
from .training_preview import text_px

FACT: Colour = (42, 150, 110)
HINT: Colour = STYLE


def _no_ranks() -> MergerRanks:
    return {"content": [], "style": []}


@dataclass(frozen=True)
class MergeFigures:
    """The data of a report; what is not known stays empty, and the sheet says so in its place.

    Attributes:
        losses: terms and total, one number a step
        blocks, kinds, overlaps: of the covered blocks, in one order
        content_dominant, style_dominant: active ranks of the layers of each role
        findings: in plain words
        notes: what was used and skipped
    """

    title: str
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    blocks: Sequence[BlockGates] = ()
    kinds: Sequence[KindGates] = ()
    overlaps: Sequence[BlockOverlap] = ()
    content_dominant: MergerRanks = field(default_factory=_no_ranks)
    style_dominant: MergerRanks = field(default_factory=_no_ranks)
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()


def merge_report(figures: MergeFigures, width: int = 1400) -> Image.Image:
    """One sheet `width` pixels wide and as high as its rows and words need."""
    px = text_px(width, width)
    margin, pad = px * 1.5, px * 1.2
    inner = width - 2 * margin - 2 * pad
    words = [_Paragraph(wrap(each.text, px, inner - px), _mark(each)) for each in figures.findings]
    notes = [_Paragraph(wrap(note, px, inner - px), MUTED) for note in figures.notes if note.strip()]
    heights = [
        _words_height(words, px) + 2 * pad + px * 2.2,
        width * 0.3,
        px * 9 + max(1, len(figures.blocks)) * px * 1.75,
        _words_height(notes, px) + 2 * pad + px * 2.2,
    ]
    canvas = Canvas((width, round(sum(heights) + margin * (len(heights) + 2.6))))
    sheet = canvas.box.inset(margin, margin, margin, margin)
    head, sheet = sheet.cut_top(margin * 1.6)
    canvas.text(head.left, head.top + px * 0.8, figures.title, round(px * 1.6), max_width=head.width, bold=True)

    def card(box: Box, name: str) -> Box:
        canvas.card(box)
        box = box.inset(pad, pad, pad, pad)
        canvas.text(box.left, box.top + px * 0.6, name, round(px * 1.1), max_width=box.width, bold=True)
        return box.inset(0, px * 2.2, 0, 0)

    bands: list[Box] = []
    for height in heights:
        band, sheet = sheet.cut_top(height)
        bands.append(band)
        sheet = sheet.inset(0, margin, 0, 0)
    _draw_words(canvas, card(bands[0], "In short"), words, "nothing to tell", px)
    left, right = bands[1].cut_left((bands[1].width - margin) * 0.56)
    draw_loss_curve(canvas, card(left, "Loss"), figures.losses, None, px)
    ranks = card(right.inset(margin, 0, 0, 0), "Active ranks")
    draw_rank_histogram(canvas, ranks, figures.content_dominant, figures.style_dominant, px)
    gates, rest = bands[2].cut_left((width - 4 * margin) * 0.45)
    kinds, cosines = rest.inset(margin, 0, 0, 0).cut_left((width - 4 * margin) * 0.33)
    draw_gate_map(canvas, card(gates, "Gates by block, mean |gate|"), figures.blocks, px)
    names = [block.name for block in figures.blocks]
    draw_kind_map(canvas, card(kinds, "Gates by layer kind"), names, figures.kinds, px)
    draw_cosines(canvas, card(cosines.inset(margin, 0, 0, 0), "Cosine, pale: before"), figures.overlaps, px)
    _draw_words(canvas, card(bands[3], "Notes"), notes, "no notes", px)
    return canvas.image()


@dataclass(frozen=True)
class _Paragraph:
    """Wrapped lines behind a mark."""

    lines: Sequence[str]
    mark: Colour


def _mark(finding: Finding) -> Colour:
    return FACT if finding.kind == "fact" else HINT


def _words_height(paragraphs: Sequence[_Paragraph], px: int) -> float:
    return max(px * 1.7, sum(len(paragraph.lines) * px * 1.5 + px * 0.45 for paragraph in paragraphs))


def _draw_words(canvas: Canvas, box: Box, paragraphs: Sequence[_Paragraph], otherwise: str, px: int) -> None:
    y = box.top + px * 0.6
    if not paragraphs:
        canvas.text(box.left, y, otherwise, px, MUTED)
    for paragraph in paragraphs:
        canvas.dot(box.left + px * 0.3, y, px * 0.26, paragraph.mark)
        for line in paragraph.lines:
            canvas.text(box.left + px, y, line, px)
            y += px * 1.5
        y += px * 0.45
