"""The plots show what the numbers say, at exactly the size asked for, and never cut text off."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from PIL import Image

from duolora_core.merge.overlap import BlockOverlap, Overlap
from duolora_core.merge.statistics import BlockGates, KindGates
from duolora_core.model.layer_kinds import KINDS
from duolora_core.report import (
    Finding,
    MergeFigures,
    MergerRanks,
    merge_report,
    training_preview,
)
from duolora_core.report.canvas import CONTENT, INK, STYLE, Canvas, Colour
from duolora_core.report.gate_chart import draw_gate_map
from duolora_core.report.rank_chart import draw_rank_histogram
from report.conftest import Lettering

LOSSES: Mapping[str, Sequence[float]] = {
    "total": [math.exp(-step / 20) for step in range(100)],
    "reconstruction_content": [0.02 * math.exp(-step / 30) for step in range(100)],
    "reconstruction_style": [0.03 * math.exp(-step / 30) for step in range(100)],
    "cycle_content": [0.01 * math.exp(-step / 40) for step in range(100)],
    "cycle_style": [0.01 * math.exp(-step / 50) for step in range(100)],
    "layer_prior": [0.0] * 100,
}
BLOCK = BlockGates("up_blocks.0.attentions.1", "neutral", 0.5, 0.5, 10, 64, 20, 128)
BLOCKS = [
    replace(BLOCK, name=f"{name}.attentions.{i}", role=role)
    for name, role in (("down_blocks.2", "content"), ("mid_block", "neutral"), ("up_blocks.1", "style"))
    for i in range(3)
]
CONTENT_LAYERS: MergerRanks = {"content": [60, 61, 64, 58], "style": [3, 0, 8]}
STYLE_LAYERS: MergerRanks = {"content": [4, 5], "style": [64]}
NO_LAYERS: MergerRanks = {"content": [], "style": []}
ONE_LAYER: MergerRanks = {"content": [0], "style": []}
NOTES = ["Four layers were skipped: " + "first_stage_model.encoder." * 12, "小狗 + Élan café × 2 → λ", ""]
FULL = MergeFigures(
    "Title × " * 40,
    LOSSES,
    BLOCKS * 4,
    [KindGates(block.name, kind, 0.5, None if kind == "convolution" else 1.2) for block in BLOCKS for kind in KINDS],
    [BlockOverlap(block.name, Overlap(1.0, 4.0, -1.0), Overlap(0.0, 1.0, 0.0)) for block in BLOCKS * 4],
    CONTENT_LAYERS,
    STYLE_LAYERS,
    [Finding("fact", "It is so. " * 30), Finding("hint", "Try something else. " * 30)],
    NOTES * 5,
)
SIZES = [(512, 512), (512, 256), (1400, 900), (200, 120)]


def pixels(image: Image.Image, colour: Colour) -> list[tuple[int, int]]:
    """The (x, y) of every pixel of exactly this colour."""
    data = image.tobytes()
    wanted = bytes(colour)
    return [(i // 3 % image.width, i // 3 // image.width) for i in range(0, len(data), 3) if data[i : i + 3] == wanted]


# --- The pictures say what the numbers say


def test_a_higher_gate_makes_a_longer_bar_on_its_own_side() -> None:
    def drawn(block: BlockGates) -> tuple[list[tuple[int, int]], ...]:
        canvas = Canvas((960, 540))
        draw_gate_map(canvas, canvas.box, [block], 18)
        bars = canvas.image().crop((0, 34, 960, 540))  # without the header, whose words have the same colours
        return pixels(bars, CONTENT), pixels(bars, STYLE)

    (low, same), (high, style) = drawn(BLOCK), drawn(replace(BLOCK, content_mean=0.75))
    assert len(high) == pytest.approx(1.5 * len(low), rel=0.05)
    assert style == same
    assert max(x for x, _ in high) < min(x for x, _ in style)


def test_rank_histogram_puts_few_ranks_left_and_many_right_and_more_layers_higher() -> None:
    canvas = Canvas((900, 400))
    draw_rank_histogram(canvas, canvas.box, {"content": [64] * 8, "style": [2] * 4}, NO_LAYERS, 18)
    bars = canvas.image().crop((0, 62, 450, 400))
    content, style = pixels(bars, CONTENT), pixels(bars, STYLE)
    assert max(x for x, _ in style) < 120 and min(x for x, _ in content) > 380
    assert min(y for _, y in content) < min(y for _, y in style)


def test_preview_bar_shows_the_progress() -> None:
    def bar(step: int) -> int:
        strip = training_preview({}, [], step, 100, None).crop((0, 34, 512, 41))
        return len(pixels(strip, INK))

    assert bar(0) == 0 < bar(50)
    assert bar(100) == pytest.approx(2 * bar(50), rel=0.06)


def test_preview_shows_the_sample_beside_the_losses() -> None:
    green = (10, 200, 30)
    preview = training_preview(LOSSES, BLOCKS, 37, 100, 12.0, Image.new("RGB", (16, 16), green))
    shown, curve = pixels(preview, green), pixels(preview.crop((0, 60, 512, 250)), INK)
    sides = [max(place[i] for place in shown) - min(place[i] for place in shown) + 1 for i in (0, 1)]
    assert sides[0] == sides[1] > 150
    assert max(x for x, _ in curve) < min(x for x, _ in shown)
    assert not pixels(training_preview(LOSSES, BLOCKS, 37, 100, 12.0), green)


def test_preview_without_gates_shows_the_sample_in_their_place() -> None:
    """Below the losses, which have the whole picture where there is no sample either."""
    green = (10, 200, 30)
    preview = training_preview(LOSSES, (), 37, 100, 12.0, Image.new("RGB", (16, 16), green))
    curve = pixels(preview.crop((0, 60, 512, 250)), INK)
    assert min(y for _, y in pixels(preview, green)) > 60 + max(y for _, y in curve)
    alone = pixels(training_preview(LOSSES, (), 37, 100, 12.0).crop((0, 60, 512, 512)), INK)
    assert max(y for _, y in alone) - min(y for _, y in alone) > max(y for _, y in curve) - min(y for _, y in curve)


@pytest.mark.parametrize(
    ("step", "seconds", "words"),
    [(37, 12.2, "step 37/100 · 12 s left"), (37, None, "step 37/100"), (100, 0.0, "step 100/100")],
)
def test_preview_says_how_far_it_is(step: int, seconds: float | None, words: str, letterings: list[Lettering]) -> None:
    training_preview(LOSSES, BLOCKS, step, 100, seconds)
    assert words in [lettering.text for lettering in letterings]


# --- Size and text


def pictures(size: tuple[int, int]) -> Iterator[Image.Image]:
    long_names = [replace(block, name=block.name * 4, content_rank=12345) for block in BLOCKS]
    many = [replace(BLOCK, name=f"transformer_blocks.{i}") for i in range(70)]
    for losses, blocks in (
        (LOSSES, BLOCKS),
        ({}, []),
        ({"total": []}, [BLOCK]),
        ({"total": [0.5]}, many),
        ({"a very long name of a loss " * 4: [1e-9, 3e7]}, long_names),
    ):
        yield training_preview(losses, blocks, 1, 100, 4000.0, size=size)
        yield training_preview(losses, blocks, 1, 100, 4000.0, Image.new("RGB", (16, 24)), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_have_their_size_and_keep_all_text_inside(size: tuple[int, int], letterings: list[Lettering]) -> None:
    for image in pictures(size):
        assert image.size == size and image.mode == "RGB"
    assert {"10/64", "20/128", "no steps yet"} <= {lettering.text for lettering in letterings}
    assert [text for text in letterings if not inside(text, *size)] == []


@pytest.mark.parametrize("width", [900, 1400, 2000])
def test_report_grows_with_its_contents_and_keeps_all_text_inside(width: int, letterings: list[Lettering]) -> None:
    short = merge_report(MergeFigures("Title"), width)
    assert all(inside(text, *short.size) for text in letterings)
    letterings.clear()
    long = merge_report(FULL, width)
    assert all(inside(text, *long.size) for text in letterings)
    assert short.width == long.width == width
    assert short.height < long.height


def test_report_writes_every_word_of_its_findings_and_notes(letterings: list[Lettering]) -> None:
    note = "every word of this rather long note should be found again somewhere on the sheet " * 3
    merge_report(replace(FULL, notes=[note]))
    written = " ".join(lettering.text for lettering in letterings)
    for text in (note, *(finding.text for finding in FULL.findings)):
        assert " ".join(text.split()) in written


def test_text_is_moved_and_shortened_into_the_canvas(letterings: list[Lettering]) -> None:
    canvas = Canvas((120, 40))
    canvas.text(-50, 20, "left", 14)
    canvas.text(400, 90, "right below", 14, align="right")
    canvas.text(60, -30, "longer than the canvas is wide", 14, align="centre")
    assert [text for text in letterings if not inside(text, 120, 40)] == []
    assert letterings[2].text.endswith("…")


def inside(lettering: Lettering, width: int, height: int) -> bool:
    box = lettering.box
    return box.left >= -0.5 and box.top >= 0 and box.right <= width + 0.5 and box.bottom <= height
