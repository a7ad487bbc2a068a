"""Where a LoRA's scale is found, and what is said of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from duolora_core import read_lora
from duolora_core.errors import LoraFileError
from duolora_core.lora.adapters import PlainLora
from duolora_core.lora.beside import beside, words_beside
from duolora_core.lora.trigger_words import trigger_words
from one_layer import pair_of

Q, K = (f"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_{name}" for name in "qk")


def scales(
    folder: Path, metadata: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **alphas: float
) -> tuple[dict[str, float], str]:
    """({layer's last letter: its scale}, the notes) of a file with two layers of rank 2."""
    tensors = pair_of(Q) | pair_of(K) | {f"{Q[:-1]}{end}.alpha": torch.tensor(a) for end, a in alphas.items()}
    said = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    save_file(tensors, folder / "a.safetensors", said or None)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    file = read_lora(folder / "a.safetensors")
    entries = {layer[-1]: entry for layer, entry in file.entries.items() if isinstance(entry, PlainLora)}
    return {end: entry.scale for end, entry in entries.items()}, "\n".join(file.notes)


UNET = {"unet.r": 2, "unet.lora_alpha": 8}
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}


@pytest.mark.parametrize(
    ("metadata", "config", "alphas", "q", "k", "words"),
    [
        ({}, None, {}, 1.0, 1.0, "nothing in or beside the file says an alpha, so 1 was taken"),
        ({}, None, {"q": 8.0}, 4.0, 1.0, "nothing for 1 layers says an alpha"),
        ({}, None, {"q": 8.0, "k": 1.0}, 4.0, 0.5, ""),
        ({"lora_adapter_metadata": UNET}, None, {}, 4.0, 4.0, "of 2 layers from lora_adapter_metadata"),
        ({"lora_adapter_metadata": UNET}, None, {"q": 1.0}, 0.5, 4.0, "of 1 layers from lora_adapter_metadata"),
        (
            {"lora_adapter_metadata": {**UNET, "unet.use_rslora": True}},
            None,
            {},
            8 / math.sqrt(2),
            8 / math.sqrt(2),
            "",
        ),
        ({"lora_adapter_metadata": {**UNET, "unet.alpha_pattern": {"attn1.to_q": 1}}}, None, {}, 0.5, 4.0, ""),
        (
            {"lora_adapter_metadata": {**UNET, "unet.r": 16, "unet.rank_pattern": {"to_q": 2}}},
            None,
            {},
            4.0,
            1.0,
            "rank 2",
        ),
        (
            {"lora_adapter_metadata": {"text_encoder.r": 2, "text_encoder.lora_alpha": 8}},
            None,
            {},
            1.0,
            1.0,
            "so 1 was",
        ),
        ({}, PEFT, {}, 4.0, 4.0, "of 2 layers from adapter_config.json"),
        ({"lora_adapter_metadata": UNET}, {**PEFT, "lora_alpha": 2}, {}, 4.0, 4.0, "lora_adapter_metadata"),
        ({}, {**PEFT, "peft_type": "ADALORA", "r": 9, "rank_pattern": {"x": [True]}}, {}, 4.0, 4.0, ""),
        ({"ss_network_alpha": "16"}, None, {}, 1.0, 1.0, "ss_network_alpha says 16, but no layer has an alpha"),
        ({"ss_network_alpha": "16"}, None, {"q": 8.0, "k": 8.0}, 4.0, 4.0, "the layers' own alpha is 8"),
        ({"ss_network_alpha": "8.0"}, None, {"q": 8.0, "k": 8.0}, 4.0, 4.0, ""),
        ({"ss_network_alpha": "Dynamic"}, None, {"q": 8.0, "k": 8.0}, 4.0, 4.0, ""),
    ],
)
def test_the_scale_is_that_of_the_nearest_place_that_says_one(
    metadata: dict[str, Any],
    config: dict[str, Any] | None,
    alphas: dict[str, float],
    q: float,
    k: float,
    words: str,
    tmp_path: Path,
) -> None:
    found, notes = scales(tmp_path, metadata, config, **alphas)
    assert found == pytest.approx({"q": q, "k": k})
    assert words in notes if words else not notes or "from" in notes


def test_a_config_beside_several_files_belongs_to_none(tmp_path: Path) -> None:
    save_file(pair_of(K), tmp_path / "other.safetensors")
    assert scales(tmp_path, config=PEFT)[0] == {"q": 1.0, "k": 1.0}


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000])
def test_a_config_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(LoraFileError, match=r"a\.safetensors: the adapter_config\.json beside it"):
        scales(tmp_path)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (
            {"civitai": {"trainedWords": [" sks dog ", "red", "sks dog", "", 7, "sky", "more"]}},
            ["sks dog", "red", "sky"],
        ),
        ({"civitai": None}, []),
        ({"civitai": {"trainedWords": "sks"}}, []),
        ([], []),
        ("{", []),
    ],
)
def test_trigger_words_of_lora_manager(held: Any, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "dog.v2.safetensors"
    text = held if isinstance(held, str) else json.dumps(held)
    (tmp_path / "dog.v2.metadata.json").write_text(text, encoding="utf-8")
    assert words_beside(path) == words
    assert beside(path) == [tmp_path / "dog.v2.metadata.json"]
    tags = {"ss_tag_frequency": '{"x": {"tag": 3}}'}
    assert trigger_words(tags, beside=words) == (words or ["tag"])
    assert trigger_words({**tags, "modelspec.trigger_phrase": "own"}, beside=words) == ["own"]
