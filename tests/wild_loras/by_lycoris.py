"""What LyCORIS 4 writes: its own modules, with trained-looking numbers, and the weights that they merge into."""

# LyCORIS ships no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor

from wild_loras.layers import ATTENTION, CONV_OUT, CONVOLUTIONS, EMBEDDING, TEXT, Family, placed_name, randomise
from wild_loras.sample import Sample, written

LINEAR = (*ATTENTION, EMBEDDING)
ALL = (*LINEAR, *CONVOLUTIONS)
TEXTS = tuple(TEXT)[:2]


@dataclass(frozen=True)
class Recipe:
    """How LyCORIS is asked for one file.

    Attributes:
        in_core: as of Sample
        of_base: its DoRA is read as ComfyUI reads it: against the lengths of the old weight, not those of the sum
    """

    kind: str
    module: type[Any]
    layers: tuple[str, ...]
    settings: dict[str, Any]
    dtype: torch.dtype = torch.float32
    in_core: bool | str = True
    of_base: bool = False
    scale: float = 0.05


def recipes() -> Iterator[tuple[str, Recipe]]:
    """{file name: how to ask for it}."""
    half, brain = torch.float16, torch.bfloat16
    yield "lora", Recipe("LoRA", LoConModule, (*LINEAR, *TEXTS), {"lora_dim": 8, "alpha": 4})
    yield "lora_rs", Recipe("rsLoRA", LoConModule, LINEAR, {"lora_dim": 16, "alpha": 4, "rs_lora": True})
    yield "locon", Recipe("LoCon", LoConModule, ALL, {"lora_dim": 4, "alpha": 1}, half)
    tucker = {"lora_dim": 8, "alpha": 2, "use_tucker": True}
    yield "locon_tucker", Recipe("Tucker LoCon", LoConModule, (*CONVOLUTIONS, CONV_OUT), tucker)
    yield "dora", Recipe("DoRA", LoConModule, (*ALL, *TEXTS), dora({"lora_dim": 8, "alpha": 4}), of_base=True)
    columns = dora({"lora_dim": 8, "alpha": 4, "wd_on_out": False})
    yield "dora_columns", Recipe("DoRA", LoConModule, tuple(each for each in LINEAR if each != ATTENTION[0]), columns)
    yield "loha", Recipe("LoHa", LohaModule, (*ALL, *TEXTS), {"lora_dim": 4, "alpha": 2}, scale=0.3)
    yield "loha_rank", Recipe("LoHa", LohaModule, LINEAR, {"lora_dim": 12, "alpha": 1}, brain, scale=0.3)
    yield "loha_tucker", Recipe("Tucker LoHa", LohaModule, CONVOLUTIONS, tucker, scale=0.3)
    yield "doha", Recipe("DoRA on LoHa", LohaModule, LINEAR, dora({"lora_dim": 4}), of_base=True, scale=0.3)
    small = {"lora_dim": 4, "alpha": 2, "factor": 8}
    yield "lokr", Recipe("LoKr", LokrModule, (*ALL, *TEXTS), small, scale=0.2)
    yield (
        "lokr_both",
        Recipe("LoKr", LokrModule, LINEAR, {"lora_dim": 2, "alpha": 1, "decompose_both": True}, half, scale=0.2),
    )
    yield "lokr_full", Recipe("LoKr", LokrModule, ALL, {"lora_dim": 100000, "alpha": 1, "factor": 16}, scale=0.1)
    yield (
        "lokr_tucker",
        Recipe(
            "Tucker LoKr",
            LokrModule,
            CONVOLUTIONS,
            {**small, "use_tucker": True},
            in_core="core logs that a view is not contiguous, and leaves the layer out",
            scale=0.2,
        ),
    )
    yield "dokr", Recipe("DoRA on LoKr", LokrModule, LINEAR, dora(small), of_base=True, scale=0.2)
    yield "oft", Recipe("OFT", DiagOFTModule, ALL, {"lora_dim": 8, "constraint": 0}, scale=0.01)
    yield "oft_text", Recipe("OFT", DiagOFTModule, (*ATTENTION, *TEXTS), {"lora_dim": 32, "constraint": 0}, scale=0.003)
    yield "boft", Recipe("BOFT", ButterflyOFTModule, ALL, {"lora_dim": 16, "constraint": 0}, scale=0.01)
    rescaled = {"lora_dim": 10, "constraint": 0, "rescaled": True}
    yield "boft_rescaled", Recipe("BOFT", ButterflyOFTModule, ATTENTION, rescaled, scale=0.01)
    yield "glora", Recipe("GLoRA", GLoRAModule, ALL, {"lora_dim": 4, "alpha": 2})
    missing = "core has no (IA)³"
    yield "ia3", Recipe("(IA)³", IA3Module, (*ALL, *TEXTS), {}, in_core=missing)
    yield "ia3_in", Recipe("(IA)³", IA3Module, ALL, {"train_on_input": True}, in_core=missing)
    yield "full", Recipe("full difference", FullModule, ALL, {}, half, scale=0.01)


def dora(settings: dict[str, Any]) -> dict[str, Any]:
    return {"alpha": 1, **settings, "weight_decompose": True}


def samples(family: Family, folder: Path) -> Iterator[Sample]:
    for seed, (name, recipe) in enumerate(recipes()):
        tensors: dict[str, Tensor] = {}
        changes: dict[str, Tensor] = {}
        offsets: dict[tuple[str, str], Tensor] = {}
        for place, layer in enumerate(recipe.layers):
            spelled = _spelled(layer, family, diffusers=seed % 2 == 1)
            adapter: Any = recipe.module(spelled, family.module(layer), **recipe.settings)
            randomise(adapter, 100 * seed + place, recipe.scale)
            if recipe.module is FullModule:
                _make_low_rank(adapter, place)
                adapter.apply_to()  # what it saves is the difference to the weight that it took over
            _round(adapter, recipe.dtype)
            adapter.eval()
            state = {f"{spelled}.{key}": value for key, value in adapter.state_dict().items()}
            tensors |= {key: _stored(key, value, recipe.dtype) for key, value in state.items()}
            weight = family.weights[placed_name(layer)]
            with torch.no_grad():
                changes[placed_name(layer)] = _change(adapter, weight, recipe)
            if recipe.module is FullModule:
                changes[layer] = tensors[f"{spelled}.diff"].float()
                offsets[layer, "bias"] = tensors[f"{spelled}.diff_b"].float()
        path = written(folder / name / f"{name}.safetensors", tensors)
        yield Sample(recipe.kind, family, path, changes, offsets, recipe.in_core)


def _spelled(layer: str, family: Family, diffusers: bool) -> str:
    if layer in TEXT:
        return f"lora_{layer.replace('.', '_')}"
    return "lora_unet_" + (family.diffusers(layer) if diffusers else layer).replace(".", "_")


def _change(adapter: Any, weight: Tensor, recipe: Recipe) -> Tensor:
    if recipe.module in (LohaModule, LokrModule):  # their get_diff_weight scales a second time, their forward does not
        delta = adapter.get_weight(weight.shape).double()
    else:
        delta = adapter.get_diff_weight(shape=weight.shape)[0].double()
    if not recipe.of_base and recipe.module in (LohaModule, LokrModule):
        return delta
    if not recipe.of_base:
        return adapter.get_merged_weight(shape=weight.shape)[0].double() - weight.double()
    base = weight.double()
    lengths = base.flatten(1).norm(dim=1) + torch.finfo(torch.float32).eps
    ratio = adapter.dora_scale.detach().double().flatten() / lengths
    return (base + delta) * ratio.reshape(-1, *[1] * (base.ndim - 1)) - base


def _make_low_rank(adapter: Any, seed: int) -> None:
    """A difference as trainings leave it: strong in few directions."""
    generator = torch.Generator().manual_seed(seed)
    matrix = adapter.weight.data.flatten(1)
    rows, columns = matrix.shape
    up, down = (torch.randn(*size, generator=generator) for size in ((rows, 24), (24, columns)))
    strengths = 0.8 ** torch.arange(24)
    adapter.weight.data = (matrix * 0.01 + up * strengths @ down / 300).reshape(adapter.weight.shape)


def _round(adapter: Any, dtype: torch.dtype) -> None:
    """So that the merged weight is that of the numbers in the file."""
    for parameter in adapter.parameters():
        parameter.data = parameter.data.to(dtype).float()


def _stored(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() and not key.endswith("alpha") else value
