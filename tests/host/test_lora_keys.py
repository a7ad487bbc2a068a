"""Our names of layers against ComfyUI's own tables, key by key: what it understands, we understand as the same layer.

The other way round, what we understand beyond it stands in `UNET_BEYOND` and `TEXT_BEYOND` with who writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.ldm_unet import SDXL, UNet, layer_shapes
from duolora_core.lora.keys import text_layer, unet_layer
from duolora_core.model.layout import Layer, UNetLayout, layout_from_shapes
from host.hosts import Host

HERE = Path(__file__).resolve().parent
CORES_ALONE = {
    "lora_prior_te_text_projection",  # a LoRA of Stable Cascade, which has no UNet of this family
}

Spelling = Callable[[Layer], str]


def _ldm(layer: Layer) -> str:
    return layer.name


def _diffusers(layer: Layer) -> str:
    return layer.diffusers


def _first_diffusers(layer: Layer) -> str:
    """Attention processors had no list of output layers: `to_out` for `to_out.0`."""
    return layer.diffusers.removesuffix(".0") if layer.diffusers.endswith(".to_out.0") else layer.diffusers


def _flat(spelling: Spelling) -> Spelling:
    return lambda layer: spelling(layer).replace(".", "_")


UNET_BEYOND: tuple[tuple[str, Spelling, str], ...] = (
    ("unet.", _diffusers, "diffusers' scripts, with PEFT"),
    ("unet.unet.", _diffusers, "early diffusers scripts, with the part's name twice"),
    ("", _diffusers, "diffusers' UNet saved by itself, with PEFT"),
    ("", _first_diffusers, "diffusers' attention processors, without their word `.processor`"),
    ("base_model.model.", _diffusers, "PEFT's save_pretrained"),
    ("base_model.model.unet.", _diffusers, "PEFT on a module that holds the UNet"),
    ("unet.base_model.model.", _diffusers, "a model of PEFT's saved by diffusers"),
    ("unet.", _ldm, "OneTrainer, its own format (OneTrainer issue 885)"),
    ("", _ldm, "extracted by programs that keep ComfyUI's names, without its prefix"),
    ("model.diffusion_model.", _ldm, "extracted from checkpoints, whose names these are"),
    ("lycoris_unet_", _flat(_diffusers), "LyCORIS on a module that holds the UNet"),
    ("lycoris_", _flat(_ldm), "LyCORIS on a UNet of the original code"),
)
_LAYER = "encoder.layers.3.mlp.fc1"
_NAME = "text_model_encoder_layers_3_mlp_fc1"
TEXT_BEYOND: tuple[tuple[str, str, str], ...] = (
    ("lora_te1_encoder_layers_3_mlp_fc1", f"lora_te1_{_NAME}", "kohya's trainer with transformers from 5.6"),
    ("lora_te2_encoder_layers_3_mlp_fc1", f"lora_te2_{_NAME}", "kohya's trainer with transformers from 5.6"),
    (f"text_encoder.{_LAYER}", f"lora_te1_{_NAME}", "diffusers with transformers from 5.6"),
    (f"text_encoder_2.{_LAYER}", f"lora_te2_{_NAME}", "diffusers with transformers from 5.6"),
    (
        f"base_model.model.text_encoder.text_model.{_LAYER}",
        f"lora_te1_{_NAME}",
        "PEFT on a module that holds the encoder",
    ),
    (f"text_encoder.base_model.model.text_model.{_LAYER}", f"lora_te1_{_NAME}", "a model of PEFT's saved by diffusers"),
    (f"clip_l.text_model.{_LAYER}", f"lora_te1_{_NAME}", "OneTrainer, its own format"),
    (f"clip_g.text_model.{_LAYER}", f"lora_te2_{_NAME}", "OneTrainer, its own format"),
    (f"clip_l.transformer.text_model.{_LAYER}", f"lora_te1_{_NAME}", "ComfyUI's names without their prefix"),
    (f"te1.text_model.{_LAYER}", f"lora_te1_{_NAME}", "nobody that we know of: kohya's prefix with a dot"),
    (f"lycoris_text_encoder_{_NAME}", f"lora_te1_{_NAME}", "LyCORIS on a module that holds the encoder"),
    (f"lycoris_text_encoder_2_{_NAME}", f"lora_te2_{_NAME}", "LyCORIS on a module that holds the encoder"),
    ("text_encoder_2.text_projection", "lora_te2_text_projection", "diffusers, where the projection is trained"),
    (
        "lora_te1_text_model_embeddings_token_embedding",
        "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding",
        "nobody that we know of: kohya's way to write what core's Extract and Save LoRA holds",
    ),
    (
        "lora_te2_text_model_final_layer_norm",
        "text_encoders.clip_g.transformer.text_model.final_layer_norm",
        "LyCORIS in kohya's trainer, with train_norm",
    ),
)


@pytest.fixture(scope="module")
def core(host: Host) -> dict[str, dict[str, str]]:
    """{"unet" | "text": {key: the layer that core changes by it}}."""
    return host.ask(HERE / "keys_inside.py")


@pytest.fixture(scope="module")
def layout() -> UNetLayout:
    with torch.device("meta"):
        return layout_from_shapes(layer_shapes(UNet(SDXL)))


def test_every_unet_key_of_core_is_the_same_layer(core: dict[str, dict[str, str]], layout: UNetLayout) -> None:
    """But those that name a bias by itself: trainers write `<layer>.diff_b`, which core reads as we do."""
    of_weights = {key: layer for key, layer in core["unet"].items() if not layer.endswith(".bias")}
    assert set(of_weights.values()) == set(layout.layers)
    assert {key: unet_layer(key, layout) for key in of_weights} == of_weights


def test_every_text_key_of_core_is_the_same_layer(core: dict[str, dict[str, str]]) -> None:
    """By way of core's own table: the name that we save a layer under is one by which core finds it."""
    known = {key: layer for key, layer in core["text"].items() if key not in CORES_ALONE}
    assert len(set(known.values())) > 300
    assert {key: core["text"].get(text_layer(key) or "") for key in known} == known


@pytest.mark.parametrize(("prefix", "spelling", "written_by"), UNET_BEYOND)
def test_unet_names_beyond_core(
    prefix: str, spelling: Spelling, written_by: str, core: dict[str, dict[str, str]], layout: UNetLayout
) -> None:
    found = {prefix + spelling(layer): name for name, layer in layout.layers.items()}
    assert {key: unet_layer(key, layout) for key in found} == found
    assert not found.keys() <= core["unet"].keys(), f"core knows all names of {written_by} by now"


@pytest.mark.parametrize(("key", "layer", "written_by"), TEXT_BEYOND)
def test_text_names_beyond_core(key: str, layer: str, written_by: str, core: dict[str, dict[str, str]]) -> None:
    assert text_layer(key) == layer
    assert layer in core["text"] and key not in core["text"], f"core knows this name of {written_by} by now"


def test_every_way_to_write_a_name_is_listed(core: dict[str, dict[str, str]], layout: UNetLayout) -> None:
    """A spelling that the layout understands is core's after some prefix, or stands in the list."""
    listed = {spelling(layer) for _, spelling, _ in UNET_BEYOND for layer in layout.layers.values()}
    prefixes = ("", "unet.", "diffusion_model.", "lora_unet_", "lycoris_")
    strays = {
        bare
        for bare in layout.aliases
        if not {bare, f"{bare}.0"} & listed and not any(prefix + bare in core["unet"] for prefix in prefixes)
    }
    assert strays == set()
