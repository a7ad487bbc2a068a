"""What PEFT and diffusers write: their adapters on layers of the model, with the weights that PEFT merges into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from wild_loras.layers import ATTENTION, CONVOLUTIONS, EMBEDDING, Family, randomise, tree
from wild_loras.sample import Sample

METADATA = "core reads no alpha from metadata"
BESIDE = "core knows no PEFT names of a UNet and reads no adapter_config.json"


@dataclass(frozen=True)
class Recipe:
    """How PEFT is asked for one file; `in_core` as of Sample."""

    kind: str
    config: Any
    layers: Sequence[str] = ATTENTION
    in_core: bool | str = BESIDE
    by_diffusers: bool = False
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    scale: float = 0.05


def recipes(family: Family) -> Iterator[tuple[str, Recipe]]:
    q, k, out = (family.diffusers(layer) for layer in ATTENTION)
    plain = {"r": 8, "lora_alpha": 4}
    yield "peft", Recipe("PEFT LoRA", LoraConfig, (*ATTENTION, *CONVOLUTIONS, EMBEDDING), settings=plain)
    yield "peft_one", Recipe("PEFT LoRA", LoraConfig, settings={"r": 8, "lora_alpha": 8})
    yield "peft_rslora", Recipe("PEFT rsLoRA", LoraConfig, settings={**plain, "use_rslora": True})
    patterns = {"rank_pattern": {q: 4}, "alpha_pattern": {q: 1, out: 16}}
    yield "peft_patterns", Recipe("PEFT patterns", LoraConfig, settings={**plain, **patterns})
    yield "peft_dora", Recipe("PEFT DoRA", LoraConfig, settings={**plain, "use_dora": True})
    conv = (*ATTENTION, *CONVOLUTIONS)
    yield "peft_dora_conv", Recipe("PEFT DoRA", LoraConfig, conv, settings={**plain, "use_dora": True})
    biased = {**plain, "lora_bias": True}
    yield "peft_bias", Recipe("LoRA with bias", LoraConfig, settings=biased)
    adaptive = {"init_r": 8, "target_r": 4, "lora_alpha": 4, "total_step": 100}
    yield "adalora", Recipe("AdaLoRA", AdaLoraConfig, settings=adaptive, in_core="core has no AdaLoRA", scale=0.3)
    yield "peft_loha", Recipe("PEFT LoHa", LoHaConfig, conv, settings={"r": 4, "alpha": 2}, scale=0.3)
    yield "peft_lokr", Recipe("PEFT LoKr", LoKrConfig, conv, settings={"r": 4, "alpha": 2}, scale=0.3)
    feed = {"feedforward_modules": [k]}
    yield "peft_ia3", Recipe("PEFT (IA)³", IA3Config, settings=feed, in_core="core has no (IA)³")
    yield "diffusers", Recipe("diffusers metadata", LoraConfig, conv, METADATA, True, plain)
    rs = {**plain, "use_rslora": True}
    yield "diffusers_rs", Recipe("diffusers metadata", LoraConfig, conv, METADATA, True, rs)
    yield (
        "diffusers_patterns",
        Recipe("diffusers metadata", LoraConfig, ATTENTION, METADATA, True, {**plain, **patterns}),
    )
    yield "diffusers_dora", Recipe("diffusers DoRA", LoraConfig, ATTENTION, METADATA, True, {**plain, "use_dora": True})


def samples(family: Family, folder: Path) -> Iterator[Sample]:
    for seed, (name, recipe) in enumerate(recipes(family)):
        names = {layer: family.diffusers(layer) for layer in recipe.layers}
        settings = dict(recipe.settings)
        model: Any = tree((names[layer], family.module(layer)) for layer in recipe.layers)
        peft: Any = get_peft_model(model, recipe.config(target_modules=list(names.values()), **settings))
        randomise(peft, seed, recipe.scale)
        here = folder / name
        path = _by_diffusers(peft, here) if recipe.by_diffusers else _by_peft(peft, here)
        merged: nn.Module = peft.merge_and_unload()
        changes: dict[str, Tensor] = {}
        offsets: dict[tuple[str, str], Tensor] = {}
        for layer, spelled in names.items():
            module = merged.get_submodule(spelled)
            changes[layer] = module.get_parameter("weight").detach().double() - family.weights[layer].double()
            bias = module.get_parameter("bias").detach() - 1
            if bool(bias.abs().max() > 0):
                offsets[layer, "bias"] = bias
        yield Sample(recipe.kind, family, path, changes, offsets, recipe.in_core)


def _by_peft(peft: PeftModel, folder: Path) -> Path:
    peft.save_pretrained(str(folder))
    return folder / "adapter_model.safetensors"


def _by_diffusers(peft: Any, folder: Path) -> Path:
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(peft))
    state = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    config = peft.peft_config["default"].to_dict()
    StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        str(folder), unet_lora_layers=state, unet_lora_adapter_metadata=config
    )
    return folder / "pytorch_lora_weights.safetensors"
