"""In which flow each mistake of `planted.py` is made, and what must be said of it."""

from __future__ import annotations

from dataclasses import dataclass

from host.card.flows import Flow, concept, merge, sampled, with_pictures
from host.card.settings import HostSettings


@dataclass(frozen=True)
class Plant:
    """A mistake, the flow in which it is made, and a part of what must be said of it."""

    name: str
    flow: Flow
    told: str


def plants(streams: bool) -> list[Plant]:
    """All of them, or without those that need streamed weights."""
    merging = Flow("merge with pictures", with_pictures)
    training = Flow("Train Concept", concept)
    two_devices, crossing = "at least two devices", "needs a gradient changes device"
    every = [
        Plant("factor_on_the_host", merging, two_devices),
        Plant("gates_on_the_host", merging, crossing),
        Plant("noise_on_the_host", training, two_devices),
        Plant("gradient_to_the_host", training, two_devices),
        Plant("last_gradient_on_the_host", merging, "is on the other device"),
        Plant("sync_in_each_layer", merging, "syncs in a step"),
        Plant("generator_of_the_host", Flow("merge of LoRAs alone", merge), "Expected a 'cuda' device type"),
        Plant("memory_of_the_card_read", Flow("merge with live samples", sampled), "type tensor to numpy"),
        Plant("one_layer_in_another_dtype", merging, "type"),
    ]
    streamed = Flow("merge with pictures", with_pictures, "bf16", HostSettings(dynamic=True))
    return [*every, Plant("dtypes_of_the_file", streamed, "same dtype")] if streams else every
