"""Files of every kind, as trainers write them, on one model; `make test-files` reads them on all, and in ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wild_loras import by_hand, by_lycoris, by_peft, refused
from wild_loras.judge import TOLERANCE, judged
from wild_loras.layers import Family, family
from wild_loras.sample import Sample


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PEFT, on names with dots
@pytest.mark.parametrize("samples", [by_lycoris.samples, by_peft.samples, by_hand.samples])
def test_every_layer_has_the_trainers_own_value(
    samples: Callable[[Family, Path], Iterator[Sample]], tmp_path: Path
) -> None:
    for sample in samples(family("SEGMIND_VEGA"), tmp_path):
        verdict = judged(sample)
        assert not verdict.fault, (sample.path.name, verdict)
        assert verdict.worst <= TOLERANCE, (sample.path.name, verdict)


def test_what_is_not_merged_is_refused_with_its_reason(tmp_path: Path) -> None:
    assert [fault for fault in refused.faults(family("SEGMIND_VEGA"), tmp_path) if fault] == []
