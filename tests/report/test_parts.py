"""The parts below the plots: fonts, axes, and the short words on them."""

import math

import pytest
from PIL import ImageFont

from duolora_core.report import fonts, training_preview
from duolora_core.report.block_rows import block_label, block_rows
from duolora_core.report.canvas import Box
from duolora_core.report.fonts import shorten, text_width, typeset, wrap
from duolora_core.report.loss_chart import series_colour
from duolora_core.report.rank_chart import bin_width
from duolora_core.report.scales import Axis, smooth, tick_label, value_axis
from duolora_core.report.training_preview import duration

NAMES = (
    "total",
    "reconstruction_content",
    "reconstruction_style",
    "cycle_content",
    "cycle_style",
    "layer_prior",
    "similarity",
)


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


def no_wide_font(_px: int) -> None:
    """As on a system without a font for other scripts."""


def test_typeset_writes_only_what_the_font_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typeset("Élan\tcafé × 2 — ok", 12)[0] == "Elan cafe x 2 - ok"
    monkeypatch.setattr(fonts, "wide_font", no_wide_font)
    assert typeset("小狗 1", 12)[0] == "?? 1"


def test_built_in_font_survives_an_old_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    modern = ImageFont.load_default
    monkeypatch.setattr(ImageFont, "load_default", lambda: modern())  # took no size before 10.1
    monkeypatch.setattr(fonts, "wide_font", no_wide_font)
    fonts.built_in_font.cache_clear()
    try:
        assert training_preview({"total": [1.0, 0.5]}, (), 2, 2, None, size=(300, 200)).size == (300, 200)
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
    assert block_label("up_blocks.1.upsamplers.0") == "up 1 · resize 0"
    assert block_label("double_blocks.7") == "double_blocks 7"
    assert [bin_width(ranks) for ranks in (0, 16, 17, 64, 128)] == [1, 1, 2, 4, 8]


def test_rows_stand_in_line_in_boxes_of_one_height() -> None:
    left, right = block_rows(Box(0, 5, 100, 300), 7, 14), block_rows(Box(120, 5, 500, 300), 7, 14)
    assert [(row.top, row.bottom) for row in left.rows] == [(row.top, row.bottom) for row in right.rows]
    assert left.rows[0].top == left.body.top >= left.head.bottom and left.rows[-1].bottom <= 300
    assert left.label_every == 1 < block_rows(Box(0, 0, 100, 200), 70, 14).label_every


def test_series_colours_tell_the_usual_losses_apart() -> None:
    assert len({series_colour(name, i) for i, name in enumerate(NAMES)}) == len(NAMES)
