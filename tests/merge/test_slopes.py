"""What a hundred merges are judged by: a slope that single jumps do not move, and a record that names what was left."""

from __future__ import annotations

from typing import Any

import pytest

from robust.merges import BOUNDS, MB, WARMING, Record, slope


@pytest.mark.parametrize("rise", [-2.0, 0.0, 0.5])
def test_the_slope_is_that_of_the_line_whatever_single_values_do(rise: float) -> None:
    values = [rise * i for i in range(80)]
    values[10], values[40] = 1e9, -1e9
    assert slope(values) == pytest.approx(rise)


def record(**last: Any) -> Record:
    """A process that holds the same after every merge but for what is given of the last ones."""
    flat: dict[str, Any] = dict.fromkeys(BOUNDS, 7.0) | {"threads": ["a", "b"], "files": ["x"], "cached": 3}
    return Record([dict(flat) for _ in range(WARMING + 5)] + [flat | last])


def test_a_flat_record_has_no_failures() -> None:
    assert record().failures() == []


def test_what_was_left_is_named() -> None:
    assert record(threads=["a", "b", "b"]).failures() == ["threads left: b"]
    assert record(files=["x", "y"]).failures() == ["files left: y"]
    assert record(cached=4).failures() == ["the pack's caches grew from 3 to 4 entries"]


def test_what_rises_is_named_with_its_bound() -> None:
    rising = record()
    rising.held = [each | {"resident": i * 5 * MB} for i, each in enumerate(rising.held)]
    (failure,) = rising.failures()
    assert failure.startswith("resident rises by 5e+06 per merge")
