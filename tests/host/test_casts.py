"""A model that is stored in another dtype than it computes in does not hold a converted copy of itself as it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host.hosts import Host

pytestmark = pytest.mark.host
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found(host: Host) -> dict[str, Any]:
    return host.ask(HERE / "casts_inside.py", "--pack", HERE.parents[1])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_output_and_gradient_are_the_hosts_own_bit_for_bit(found: dict[str, Any], checkpointing: bool) -> None:
    seen = found[f"checkpointing {checkpointing}"]
    assert seen["equal"] == [True, True] and seen["moved"] and not seen["left"]


def test_no_converted_weight_waits_for_the_backward(found: dict[str, Any]) -> None:
    """Without it all of them do, but for those that see only the prompt or the time and carry no gradient."""
    plain, ours = found["checkpointing False"]["saved"]
    assert plain - ours > 0.8 * found["checkpointing False"]["converted"]
