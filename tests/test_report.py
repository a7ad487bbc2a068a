"""The plots show what the numbers say, at exactly the size asked for, and never cut text off."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from PIL import Image, ImageFont

from duolora_core.report import (
    BlockRow,
    MergerRanks,
    fonts,
    gate_map,
    loss_curve,
    merge_report,
    rank_histogram,
    training_preview,
)
from duolora_core.report.canvas import CONTENT, INK, STYLE, Canvas, Colour, Lettering
from duolora_core.report.fonts import shorten, text_width, typeset, wrap
from duolora_core.report.gate_chart import block_label
from duolora_core.report.loss_chart import series_colour
from duolora_core.report.rank_chart import bin_width
from duolora_core.report.scales import Axis, smooth, tick_label, value_axis
from duolora_core.report.sheets import duration

LOSSES: Mapping[str, Sequence[float]] = {
    "total": [math.exp(-step / 20) for step in range(100)],
    "reconstruction_content": [0.02 * math.exp(-step / 30) for step in range(100)],
    "reconstruction_style": [0.03 * math.exp(-step / 30) for step in range(100)],
    "cycle_content": [0.01 * math.exp(-step / 40) for step in range(100)],
    "cycle_style": [0.01 * math.exp(-step / 50) for step in range(100)],
    "layer_prior": [0.0] * 100,
}
BLOCK = BlockRow("up_blocks.0.attentions.1", "neutral", 0.5, 0.5, 10, 64, 20, 128)
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
SIZES = [(512, 512), (512, 256), (1400, 900), (200, 120)]


def pixels(image: Image.Image, colour: Colour) -> list[tuple[int, int]]:
    """The (x, y) of every pixel of exactly this colour."""
    data = image.tobytes()
    wanted = bytes(colour)
    return [(i // 3 % image.width, i // 3 // image.width) for i in range(0, len(data), 3) if data[i : i + 3] == wanted]


# --- The pictures say what the numbers say


def test_a_higher_gate_makes_a_longer_bar_on_its_own_side() -> None:
    low, high = gate_map([BLOCK]), gate_map([replace(BLOCK, content_mean=0.75)])
    assert len(pixels(high, CONTENT)) == pytest.approx(1.5 * len(pixels(low, CONTENT)), rel=0.08)
    assert len(pixels(high, STYLE)) == len(pixels(low, STYLE))
    content, style = pixels(high, CONTENT), pixels(high, STYLE)
    assert max(x for x, _ in content) < min(x for x, _ in style if x > high.width // 4)


def test_gates_above_one_rescale_the_axis_and_stay_inside() -> None:
    image = gate_map([replace(BLOCK, content_mean=3.0, style_mean=1.5)], (512, 200))
    content, style = pixels(image, CONTENT), pixels(image, STYLE)
    assert len(content) == pytest.approx(2 * len(style), rel=0.15)


def test_gate_rows_keep_the_order_given() -> None:
    first, second = replace(BLOCK, content_mean=0.9, style_mean=0), replace(BLOCK, content_mean=0, style_mean=0.9)
    image = gate_map([first, second], (600, 300))
    bars = Image.Image.crop(image, (200, 60, 600, 300))  # without the header, whose words have the same colours
    assert max(y for _, y in pixels(bars, CONTENT)) < min(y for _, y in pixels(bars, STYLE))


def test_role_mark_has_the_colour_of_the_favoured_side() -> None:
    closed = replace(BLOCK, content_mean=0, style_mean=0)
    marks = {
        role: gate_map([replace(closed, role=role)]).crop((0, 50, 40, 540)) for role in ("content", "style", "neutral")
    }
    assert pixels(marks["content"], CONTENT) and not pixels(marks["content"], STYLE)
    assert pixels(marks["style"], STYLE) and not pixels(marks["style"], CONTENT)
    assert not pixels(marks["neutral"], CONTENT) and not pixels(marks["neutral"], STYLE)


def test_the_loss_line_goes_down_when_the_loss_falls() -> None:
    image = loss_curve({"total": [1 - step / 100 for step in range(100)]}, (600, 400)).crop((60, 50, 600, 360))
    line = pixels(image, INK)
    left = [y for x, y in line if x < image.width * 0.2]
    right = [y for x, y in line if x > image.width * 0.8]
    assert max(left) < min(right)


def test_a_half_finished_run_fills_half_of_the_axis() -> None:
    half = pixels(loss_curve({"content": [0.5] * 50}, (800, 400), total_steps=100).crop((60, 50, 800, 360)), CONTENT)
    full = pixels(loss_curve({"content": [0.5] * 50}, (800, 400)).crop((60, 50, 800, 360)), CONTENT)
    span = [max(x for x, _ in points) - min(x for x, _ in points) for points in (half, full)]
    assert span[0] == pytest.approx(span[1] / 2, rel=0.05)


def test_rank_histogram_puts_few_ranks_left_and_many_right() -> None:
    image = rank_histogram({"content": [64] * 5, "style": [2] * 5}, NO_LAYERS, (900, 400)).crop((0, 80, 450, 400))
    content, style = pixels(image, CONTENT), pixels(image, STYLE)
    assert max(x for x, _ in style) < 120 and min(x for x, _ in content) > 380


def test_rank_histogram_bar_grows_with_the_number_of_layers() -> None:
    image = rank_histogram({"content": [64] * 8, "style": [2] * 4}, NO_LAYERS, (900, 400)).crop((0, 80, 450, 400))
    top = {colour: min(y for _, y in pixels(image, colour)) for colour in (CONTENT, STYLE)}
    assert top[CONTENT] < top[STYLE]


def test_preview_bar_shows_the_progress() -> None:
    def bar(step: int) -> int:
        strip = training_preview({}, [], step, 100, None).crop((0, 34, 512, 41))
        return len(pixels(strip, INK))

    assert bar(0) == 0 < bar(50)
    assert bar(100) == pytest.approx(2 * bar(50), rel=0.06)


@pytest.mark.parametrize(
    ("step", "seconds", "words"),
    [(37, 12.2, "step 37/100 · 12 s left"), (37, None, "step 37/100"), (100, 0.0, "step 100/100")],
)
def test_preview_says_how_far_it_is(step: int, seconds: float | None, words: str, letterings: list[Lettering]) -> None:
    training_preview(LOSSES, BLOCKS, step, 100, seconds)
    assert words in [lettering.text for lettering in letterings]


def test_gate_map_states_active_and_total_ranks(letterings: list[Lettering]) -> None:
    gate_map([BLOCK])
    assert {"10/64", "20/128", "up 0 · attn 1"} <= {lettering.text for lettering in letterings}


# --- Size and text


@pytest.fixture
def letterings(monkeypatch: pytest.MonkeyPatch) -> list[Lettering]:
    """Every piece of text on every canvas made during the test."""
    collected: list[Lettering] = []
    original = Canvas.__init__

    def collect(canvas: Canvas, size: tuple[int, int]) -> None:
        original(canvas, size)
        canvas.letterings = collected

    monkeypatch.setattr(Canvas, "__init__", collect)
    return collected


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
        yield training_preview(losses, blocks, 1, 100, 4000.0, size)
    yield loss_curve(LOSSES, size, 100)
    yield gate_map(BLOCKS, size)
    for content in (CONTENT_LAYERS, NO_LAYERS, ONE_LAYER):
        yield rank_histogram(content, NO_LAYERS, size)
        yield rank_histogram(content, STYLE_LAYERS, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_have_their_size_and_keep_all_text_inside(size: tuple[int, int], letterings: list[Lettering]) -> None:
    for image in pictures(size):
        assert image.size == size and image.mode == "RGB"
    assert letterings
    assert [text for text in letterings if not inside(text, *size)] == []


@pytest.mark.parametrize("width", [900, 1400, 2000])
def test_report_grows_with_its_contents_and_keeps_all_text_inside(width: int, letterings: list[Lettering]) -> None:
    short = merge_report("Title", {}, [], NO_LAYERS, NO_LAYERS, [], width)
    assert all(inside(text, *short.size) for text in letterings)
    letterings.clear()
    long = merge_report("Title × " * 40, LOSSES, BLOCKS * 4, CONTENT_LAYERS, STYLE_LAYERS, NOTES * 5, width)
    assert all(inside(text, *long.size) for text in letterings)
    assert short.width == long.width == width
    assert short.height < long.height


def test_report_writes_every_word_of_the_notes(letterings: list[Lettering]) -> None:
    note = "every word of this rather long note should be found again somewhere on the sheet " * 3
    merge_report("Title", LOSSES, BLOCKS, CONTENT_LAYERS, STYLE_LAYERS, [note])
    written = " ".join(lettering.text for lettering in letterings)
    assert " ".join(note.split()) in written


def test_text_is_moved_and_shortened_into_the_canvas() -> None:
    canvas = Canvas((120, 40))
    canvas.text(-50, 20, "left", 14)
    canvas.text(400, 90, "right below", 14, align="right")
    canvas.text(60, -30, "longer than the canvas is wide", 14, align="centre")
    assert [text for text in canvas.letterings if not inside(text, 120, 40)] == []
    assert canvas.letterings[2].text.endswith("…")


def inside(lettering: Lettering, width: int, height: int) -> bool:
    box = lettering.box
    return box.left >= -0.5 and box.top >= 0 and box.right <= width + 0.5 and box.bottom <= height


def test_wrap_and_shorten_keep_to_the_width() -> None:
    text = "a few words and_then_one_that_is_much_longer_than_any_line_can_be end"
    lines = wrap(text, 14, 120)
    assert all(text_width(line, 14) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert text_width(shorten(text, 14, 90), 14) <= 90
    assert shorten(text, 14, 90, keep_end=True).endswith("end")
    assert shorten("fits", 14, 90) == "fits"
    assert shorten("no room", 14, 1) == ""
    assert wrap("", 14, 120) == []


def test_typeset_writes_only_what_the_font_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typeset("Élan\tcafé × 2 — ok", 12)[0] == "Elan cafe x 2 - ok"
    monkeypatch.setattr(fonts, "wide_font", lambda px: None)
    assert typeset("小狗 1", 12)[0] == "?? 1"


def test_built_in_font_survives_an_old_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    modern = ImageFont.load_default
    monkeypatch.setattr(ImageFont, "load_default", lambda: modern())  # took no size before 10.1
    monkeypatch.setattr(fonts, "wide_font", lambda px: None)
    fonts.built_in_font.cache_clear()
    try:
        assert loss_curve(LOSSES, (300, 200)).size == (300, 200)
    finally:
        fonts.built_in_font.cache_clear()


# --- Scales and words


def test_value_axis_is_logarithmic_only_where_it_helps() -> None:
    assert value_axis([0.5, 1.0]) == Axis(0, 1.05)
    assert value_axis([1e-3, 1.0]).log
    assert value_axis([0.0, 0.5, 1.0]).log is False
    assert value_axis([0.0, 1e-9, 1.0]).low == pytest.approx(0.8e-5)  # not more than five decades
    assert value_axis([-1.0, 100.0]).low < -1.0
    assert value_axis([math.nan, math.inf, 0.0]) == value_axis([]) == Axis(0, 1)
    assert value_axis([-2.0]).fraction(-2.0) >= 0


@pytest.mark.parametrize("axis", [Axis(0, 100), Axis(0, 1.05), Axis(-3, 7), Axis(0, 3e-4), Axis(1e-5, 1, log=True)])
def test_ticks_are_few_and_rise_inside_the_axis(axis: Axis) -> None:
    ticks = axis.ticks(5)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high for tick in ticks)


def test_axis_maps_its_ends_and_holds_what_lies_beyond() -> None:
    axis = Axis(0.01, 1, log=True)
    assert [axis.fraction(value) for value in (0.0, 0.01, 0.1, 1, 5)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_smoothing_keeps_constants_and_length_and_calms_noise() -> None:
    assert smooth([2.0] * 7, 3) == [2.0] * 7
    assert smooth([], 3) == [] and smooth([1.0], 9) == [1.0]
    zigzag = [0.0, 1.0] * 10
    calm = smooth(zigzag, 5)
    assert len(calm) == 20 and max(calm) - min(calm) < 0.5


def test_short_words() -> None:
    assert [tick_label(value) for value in (0, 0.05, 200, 1e-5, 3e7)] == ["0", "0.05", "200", "1e-5", "3e7"]
    assert [duration(s) for s in (-1, 12.4, 200, 3900)] == ["0 s", "12 s", "3 min 20 s", "1 h 05 min"]
    assert block_label("down_blocks.2.attentions.0") == "down 2 · attn 0"
    assert block_label("mid_block") == "mid"
    assert block_label("double_blocks.7") == "double_blocks 7"
    assert [bin_width(ranks) for ranks in (0, 16, 17, 64, 128)] == [1, 1, 2, 4, 8]


def test_series_colours_tell_the_usual_losses_apart() -> None:
    assert len({series_colour(name, i) for i, name in enumerate([*LOSSES, "similarity"])}) == 7
