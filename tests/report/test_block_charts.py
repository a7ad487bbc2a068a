"""The charts that stand beside the gate map: layer kinds and cosines, one row for each block."""

from __future__ import annotations

import numpy as np
import pytest

from duolora_core.merge.overlap import BlockOverlap, Overlap
from duolora_core.merge.statistics import KindGates
from duolora_core.report.canvas import PRIOR, Canvas
from duolora_core.report.cosine_chart import draw_cosines
from duolora_core.report.kind_chart import draw_kind_map
from report.conftest import Lettering


def test_kind_map_has_a_column_for_each_kind_that_is_there(letterings: list[Lettering]) -> None:
    canvas = Canvas((600, 200))
    kinds = [KindGates("a", "feed-forward", 0.5, None), KindGates("b", "self-attention", 1.25, 0.75)]
    draw_kind_map(canvas, canvas.box, ["a", "b"], kinds, 14)
    written = {lettering.text: lettering.box for lettering in letterings}
    assert {"self", "feed fwd", ".50", "1.25", ".75"} <= written.keys() and "conv" not in written
    assert written["1.25"].right < written[".75"].left < written[".50"].left
    assert written[".50"].bottom < written["1.25"].top


def test_cosine_bars_grow_to_their_own_side() -> None:
    canvas = Canvas((600, 200))
    overlaps = [
        BlockOverlap(name, Overlap(1.0, 1.0, 0.0), Overlap(1.0, 1.0, cosine))
        for name, cosine in (("a", 0.4), ("b", -0.2))
    ]
    draw_cosines(canvas, canvas.box, overlaps, 14)
    bars = (np.asarray(canvas.image()) == PRIOR).all(axis=2)
    upper, lower = (np.nonzero(bars[top : top + 30])[1] for top in (27, 58))
    assert upper.min() > lower.max() - 2
    assert np.ptp(upper) == pytest.approx(2 * np.ptp(lower), rel=0.02)


def test_no_blocks_are_told(letterings: list[Lettering]) -> None:
    kinds, cosines = Canvas((300, 100)), Canvas((300, 100))
    draw_kind_map(kinds, kinds.box, [], [], 14)
    draw_cosines(cosines, cosines.box, [], 14)
    assert [lettering.text for lettering in letterings] == ["no layers", "no blocks"]
