"""Files of the corpus that hold no plain LoRA, or say its scale elsewhere, each with what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as library_save
from torch import Tensor

from robust.makers import saved, written
from robust.strangers import KEYS

_MANY, _TWO = 1_000_000, torch.ones(2, 2)


def _loha(rank: int, size: int) -> dict[str, Tensor]:
    sides = (("a", (size, rank)), ("b", (rank, size)))
    return {f"hada_w{i}_{f}": torch.ones(shape) for i in (1, 2) for f, shape in sides}


_PARTS: dict[str, tuple[dict[str, Tensor], str]] = {
    "LoHa without a factor": ({f"hada_w{f}": _TWO for f in ("1_a", "1_b", "2_a")}, "no hada_w2_b"),
    "LoHa above memory": (_loha(1, _MANY), "a weight of 1000000 x 1000000"),
    "LoHa of a rank above memory": (_loha(50_000, 2), "a weight of"),
    "LoKr above memory": (
        {"lokr_w1": torch.ones(1000, 1000), "lokr_w2": torch.ones(1000, 1000)},
        "a weight of 1000000 x 1000000",
    ),
    "LoKr without a factor": ({"lokr_w1": _TWO}, "no lokr_w2_a and no lokr_w2_b"),
    "LoKr of both kinds": ({"lokr_w1": _TWO, "lokr_w1_a": _TWO, "lokr_w2": _TWO}, "do not fit each other"),
    "DoRA of numbers for no side": (
        {"lora_up.weight": _TWO, "lora_down.weight": _TWO, "dora_scale": torch.ones(3)},
        "cannot be laid out without the model",
    ),
    "OFT of no squares": ({"oft_blocks": torch.ones(2, 3, 4)}, "do not fit each other"),
    "OFT with a trained rescale": (
        {"oft_blocks": torch.ones(2, 2, 2), "rescale": torch.full((4, 1), 2.0)},
        "a trained rescale",
    ),
    "BOFT of no squares": ({"oft_blocks": torch.ones(2, 2, 3, 4)}, "do not fit each other"),
    "AdaLoRA of another rank": (
        {"lora_A": _TWO, "lora_B": _TWO, "lora_E": torch.ones(3, 1)},
        "do not fit each other",
    ),
    "DoRA of two kinds": (
        {
            "lora_up.weight": _TWO,
            "lora_down.weight": _TWO,
            "magnitude": torch.ones(2),
            "dora_scale": torch.ones(2, 1),
        },
        "dora_scale and magnitude at once",
    ),
    "new weight without a model": ({"set_weight": _TWO}, "cannot be laid out without the model"),
    "(IA)³ of a convolution": ({"ia3_l": torch.ones(1, 2, 1, 1)}, "whether it scales inputs or outputs"),
    "GLoRA without a factor": ({f"{part}.weight": _TWO for part in ("a1", "a2", "b1")}, "no glora_b2"),
    "(IA)³ without scales": ({"on_input": torch.tensor(0)}, "no ia3_weight"),
    "full difference of another shape": ({"diff": torch.ones(3, 5)}, "the model's has shape"),
}
_SCALES = {
    "that is no JSON": ("{", "it is not JSON"),
    "of lists": ("[]", "no JSON object"),
    "of words": ('{"unet.r": "x", "unet.lora_alpha": 1}', "cannot be understood"),
    "by an expression": (
        '{"unet.r": 2, "unet.lora_alpha": 1, "unet.rank_pattern": {"(a+)+$": 2}}',
        "instead of a layer's name",
    ),
    "without end": ("[" * 1_000_000, "it is not JSON"),
}


def _only(parts: dict[str, Tensor]) -> Callable[[Path], Path]:
    """A file of nothing else, made when it is asked for."""
    return written(lambda: library_save({f"{KEYS[0]}.{part}": value.clone() for part, value in parts.items()}))


def other_kinds() -> dict[str, tuple[Callable[[Path], Path], str | None]]:
    """{what is odd: (how the file is made, words that its refusal must hold, or None)}."""
    return {
        **{kind: (_only(parts), words) for kind, (parts, words) in _PARTS.items()},
        **{
            f"scale in metadata {how}": (written(saved({}, lora_adapter_metadata=text)), words)
            for how, (text, words) in _SCALES.items()
        },
        "two adapters at once": (written(saved({f"{KEYS[0]}.diff": _TWO})), "at once"),
        "a new norm": (written(saved({f"{KEYS[0]}.set_weight": torch.ones(2)})), "at once"),
        "a bundled embedding": (written(saved({"bundle_emb.x.clip_l": torch.ones(2, 768)})), None),
    }
