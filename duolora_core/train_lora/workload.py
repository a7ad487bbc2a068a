"""What a training from pictures needs in memory, for the planner in `memory.needs`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..model.layout import UNetLayout
from ..model.memory.estimate import Workload
from .trainable_lora import Side, TrainableLora


def train_lora_workload(
    layout: UNetLayout,
    loras: Mapping[Side, TrainableLora],
    sizes: Sequence[tuple[int, int]],
    samples: int,
    text_tokens: int = 77,
) -> Workload:
    """The workload of `train_lora` and of `unzip`.

    A factor's gradient needs the layer's input as well as the rank components, so unlike a gate it keeps both; layers
    that share their input (queries, keys and values of self-attention) keep it once, and the prompt is there anyway.

    Args:
        sizes: (h, w) of the latents
        samples: a step evaluates at most so many of one size with gradient
        text_tokens: of the longest prompt
    """
    ranks: dict[str, int] = {}
    for lora in loras.values():
        for name, down in lora.down.items():
            ranks[name] = ranks.get(name, 0) + len(down)
    kept = {name: rank + _input(layout, name) for name, rank in ranks.items()}
    trained = sum(tensor.numel() for lora in loras.values() for _, tensor in lora.trained())
    return Workload(
        layout=layout,
        kept=kept,
        factors=trained,
        latent=max(sizes, key=math.prod),
        students=samples,
        teachers=1,
        text_tokens=text_tokens,
        trained=trained,
    )


def _input(layout: UNetLayout, name: str) -> int:
    """Elements per position of a layer's input that its LoRA keeps and nothing else does."""
    if name.endswith((".attn1.to_k", ".attn1.to_v", ".attn2.to_k", ".attn2.to_v")):
        return 0
    return layout.layers[name].shape[1]
