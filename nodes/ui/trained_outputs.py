"""The outputs of both trainers, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...duolora_core.train_lora.trainable_lora import Side
from ..host.outputs import blocked_output
from ..run.progress import loss_map
from ..run.trained_loras import SIDES, TrainedLoras
from .sockets import ConceptSocket, LoraModelSocket, LossMapSocket, MergedSocket


def trained_outputs() -> list[io.Output]:
    """The outputs of both trainers."""
    return [
        *(ConceptSocket.Output(role) for role in SIDES),
        *(LoraModelSocket.Output(f"{role}_lora") for role in SIDES),
        MergedSocket.Output("merged"),
        LossMapSocket.Output("loss"),
        io.String.Output("info"),
    ]


def node_output(result: TrainedLoras) -> io.NodeOutput:
    """The values of `trained_outputs`; nodes connected to a role that was not trained are told so."""

    def each(table: Mapping[Side, Any], role: Side) -> Any:
        trained = ", ".join(table)
        return (
            table[role]
            if role in table
            else blocked_output(
                f"This node trained {trained} only, so its {role} outputs are empty. Change its role, or connect the "
                f"{trained} output."
            )
        )

    return io.NodeOutput(
        *(each(result.concepts, role) for role in SIDES),
        *(each(result.loras, role) for role in SIDES),
        result.merged,
        loss_map(result.merged.losses),
        "\n".join(result.merged.notes),
    )
