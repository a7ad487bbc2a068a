"""Files of the corpus that hold no plain LoRA, or say its scale elsewhere, each with what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as library_save

from robust.makers import saved, written
from robust.strangers import KEYS

_MANY = 1_000_000
_PARTS: dict[str, dict[str, torch.Tensor]] = {
    "LoHa without a factor": {f"hada_w{f}": torch.ones(2, 2) for f in ("1_a", "1_b", "2_a")},
    "LoHa above memory": {
        f"hada_w{i}_{f}": torch.ones(shape) for i in (1, 2) for f, shape in (("a", (_MANY, 1)), ("b", (1, _MANY)))
    },
    "LoHa of a rank above memory": {
        f"hada_w{i}_{f}": torch.ones(shape) for i in (1, 2) for f, shape in (("a", (2, 50_000)), ("b", (50_000, 2)))
    },
    "LoKr above memory": {"lokr_w1": torch.ones(1000, 1000), "lokr_w2": torch.ones(1000, 1000)},
    "LoKr without a factor": {"lokr_w1": torch.ones(2, 2)},
    "LoKr of both kinds": {"lokr_w1": torch.ones(2, 2), "lokr_w1_a": torch.ones(2, 2), "lokr_w2": torch.ones(2, 2)},
    "DoRA without a model": {
        "lora_up.weight": torch.ones(2, 2),
        "lora_down.weight": torch.ones(2, 2),
        "dora_scale": torch.ones(3),
    },
    "OFT of no squares": {"oft_blocks": torch.ones(2, 3, 4)},
    "OFT with a trained rescale": {"oft_blocks": torch.ones(2, 2, 2), "rescale": torch.full((4, 1), 2.0)},
    "BOFT of no squares": {"oft_blocks": torch.ones(2, 2, 3, 4)},
    "AdaLoRA of another rank": {
        "lora_A": torch.ones(2, 2),
        "lora_B": torch.ones(2, 2),
        "lora_E": torch.ones(3, 1),
    },
    "magnitude and scale": {
        "lora_up.weight": torch.ones(2, 2),
        "lora_down.weight": torch.ones(2, 2),
        "magnitude": torch.ones(2),
        "dora_scale": torch.ones(2, 1),
    },
    "new weight without a model": {"set_weight": torch.ones(2, 2)},
    "(IA)³ of a convolution": {"ia3_l": torch.ones(1, 2, 1, 1)},
    "GLoRA without a factor": {f"{part}.weight": torch.ones(2, 2) for part in ("a1", "a2", "b1")},
    "(IA)³ without scales": {"on_input": torch.tensor(0)},
    "full difference": {"diff": torch.ones(3, 5)},
}


def only(tensors: dict[str, torch.Tensor]) -> Callable[[Path], Path]:
    """A file of nothing else, made when it is asked for."""
    return written(lambda: library_save(tensors))


def other_kinds() -> dict[str, tuple[Callable[[Path], Path], str | None]]:
    """{what is odd: (how the file is made, words that its refusal must hold, or None)}."""
    odd = {kind: only({f"{KEYS[0]}.{part}": value for part, value in parts.items()}) for kind, parts in _PARTS.items()}
    return {
        "LoHa without a factor": (odd["LoHa without a factor"], "no hada_w2_b"),
        "LoHa above memory": (odd["LoHa above memory"], "a weight of 1000000 x 1000000"),
        "LoHa of a rank above memory": (odd["LoHa of a rank above memory"], "a weight of"),
        "LoKr above memory": (odd["LoKr above memory"], "a weight of 1000000 x 1000000"),
        "LoKr without a factor": (odd["LoKr without a factor"], "no lokr_w2_a and no lokr_w2_b"),
        "LoKr of both kinds": (odd["LoKr of both kinds"], "do not fit each other"),
        "DoRA of numbers for no side": (odd["DoRA without a model"], "cannot be laid out without the model"),
        "OFT of no squares": (odd["OFT of no squares"], "do not fit each other"),
        "OFT with a trained rescale": (odd["OFT with a trained rescale"], "a trained rescale"),
        "BOFT of no squares": (odd["BOFT of no squares"], "do not fit each other"),
        "AdaLoRA of another rank": (odd["AdaLoRA of another rank"], "do not fit each other"),
        "DoRA of two kinds": (odd["magnitude and scale"], "dora_scale and magnitude at once"),
        "new weight without a model": (odd["new weight without a model"], "cannot be laid out without the model"),
        "(IA)³ of a convolution": (odd["(IA)³ of a convolution"], "whether it scales inputs or outputs"),
        "GLoRA without a factor": (odd["GLoRA without a factor"], "no glora_b2"),
        "(IA)³ without scales": (odd["(IA)³ without scales"], "no ia3_weight"),
        "full difference of another shape": (odd["full difference"], "the model's has shape"),
        "two adapters at once": (written(saved({f"{KEYS[0]}.diff": torch.ones(2, 2)})), "at once"),
        "a new norm": (written(saved({f"{KEYS[0]}.set_weight": torch.ones(2)})), "at once"),
        "scale in metadata that is no JSON": (written(saved({}, lora_adapter_metadata="{")), "it is not JSON"),
        "scale in metadata of lists": (written(saved({}, lora_adapter_metadata="[]")), "no JSON object"),
        "scale in metadata of words": (
            written(saved({}, lora_adapter_metadata='{"unet.r": "x", "unet.lora_alpha": 1}')),
            "cannot be understood",
        ),
        "scale in metadata by an expression": (
            written(
                saved(
                    {},
                    lora_adapter_metadata='{"unet.r": 2, "unet.lora_alpha": 1, "unet.rank_pattern": {"(a+)+$": 2}}',
                )
            ),
            "instead of a layer's name",
        ),
        "scale in metadata without end": (written(saved({}, lora_adapter_metadata="[" * 1_000_000)), "it is not JSON"),
        "a bundled embedding": (written(saved({"bundle_emb.x.clip_l": torch.ones(2, 768)})), None),
    }
