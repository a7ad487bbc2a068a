"""What the layer prior does by itself: mean gates of one content-dominant layer after 100 steps from ones.

    python -m benchmarks.prior_alone

Prints one JSON line per case: form, sparsity, rank weight, mean content gate, mean style gate.
"""

from __future__ import annotations

import json
import sys

import torch

from duolora_core.merge.config import PriorForm
from duolora_core.merge.gates import Gates, Slot
from duolora_core.merge.losses import layer_prior_loss

CASES: tuple[tuple[PriorForm, float, float], ...] = (
    ("diagonal", 0.1, 2.0),
    ("diagonal", 0.1, 1.0),
    ("diagonal", 0.1, 0.2),
    ("diagonal", 1.0, 1.0),
    ("vector", 1.0, 1.0),
)


def main(rank: int = 64, steps: int = 100, learning_rate: float = 0.01) -> None:
    for form, sparsity, rank_weight in CASES:
        values = torch.ones(2 * rank, requires_grad=True)
        gates = Gates(values, {"layer": Slot(0, rank, rank)})
        optimiser = torch.optim.AdamW([values], lr=learning_rate, weight_decay=0.0)
        for _ in range(steps):
            optimiser.zero_grad()
            layer_prior_loss(gates, {"layer": "content"}, form, sparsity, rank_weight).backward()
            optimiser.step()
        means = {side: round(float(gate.detach().mean()), 3) for side, gate in _sides(gates)}
        sys.stdout.write(json.dumps({"form": form, "sparsity": sparsity, "rank_weight": rank_weight, **means}) + "\n")


def _sides(gates: Gates) -> tuple[tuple[str, torch.Tensor], ...]:
    return ("content", gates.content("layer")), ("style", gates.style("layer"))


if __name__ == "__main__":
    main()
