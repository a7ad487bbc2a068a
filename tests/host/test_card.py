"""A short choice of what runs on a pretended card; `make test-card` runs all of it."""

from __future__ import annotations

from typing import Any

import pytest

from host.card.flows import flows
from host.card.plants import plants
from host.card.running import MOST_SYNCS, run_flows, streams
from host.hosts import Host

FLOWS = [
    flow
    for flow in flows()
    if (flow.name, flow.weights)
    in {
        ("merge of LoRAs alone", "bf16"),
        ("merge of a DoRA", "fp16"),
        ("merge with pictures, checkpointed", "fp16"),
        ("merge with pictures", "fp8"),
        ("Train Concept with class pictures", "fp16"),
        ("UnZip", "fp16"),
        ("Score", "fp16"),
    }
]
PLANTS = ("factor_on_the_host", "last_gradient_on_the_host", "sync_in_each_layer")


@pytest.fixture(scope="module")
def found(host: Host) -> list[dict[str, Any]]:
    """What happened in each flow, and then in each with a planted mistake."""
    return run_flows(host, FLOWS, [each for each in plants(streams(host)) if each.name in PLANTS])


def test_a_card_would_refuse_nothing(found: list[dict[str, Any]]) -> None:
    """No tensors of two devices in one operation, no gradient that changes device, no sync per layer."""
    ran = found[: len(FLOWS)]
    assert {each["name"]: each["wrong"] for each in ran if each["wrong"]} == {}
    assert 0 < max(each["syncs"] for each in ran) <= MOST_SYNCS


def test_planted_mistakes_are_found(host: Host, found: list[dict[str, Any]]) -> None:
    told = {each.name: each.told for each in plants(streams(host))}
    for each in found[len(FLOWS) :]:
        name = each["name"].split(":")[0]
        assert any(told[name] in wrong for wrong in each["wrong"]), each
