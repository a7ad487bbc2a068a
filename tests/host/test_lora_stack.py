"""A LORA_STACK of any length, as Lora Manager, Efficiency and rgthree hand it on, read inside a host."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from host.hosts import Host

KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def test_every_lora_of_a_stack_is_loaded_with_its_strengths(host: Host, tmp_path: Path) -> None:
    """In its order, at its own strengths times the loader's, under its own trigger words; "None" is no LoRA."""
    loras = tmp_path / "loras"
    (loras / "sub").mkdir(parents=True)
    tensors = {f"{KEY}.lora_up.weight": torch.ones(640, 2), f"{KEY}.lora_down.weight": torch.ones(2, 640)}
    save_file(tensors, loras / "dog.safetensors", {"modelspec.trigger_phrase": "a sks dog"})
    save_file(tensors, loras / "sub" / "ink.v2.safetensors")
    (loras / "sub" / "ink.v2.metadata.json").write_text('{"civitai": {"trainedWords": ["ink", "wash"]}}')
    (loras / "broken.safetensors").write_bytes(b"no safetensors file")
    dog, ink = "dog.safetensors", "ink.v2.safetensors"
    stacks = {
        "two": [[dog, 0.5, 0.25], ["None", 1.0, 1.0], [f"sub\\{ink}", -1.0, 0.0], ["", 1, 1]],
        "three": [["sub/ink.v2", 1, 1], [dog, 1, 1], [dog, 1, 1]],
        "none": [],
        "missing": [[dog, 1, 1], ["gone.safetensors", 1, 1]],
        "broken": [["broken.safetensors", 1, 1]],
        "outside": [["../../secret.safetensors", 1, 1]],
        "not finite": [[dog, float("nan"), 1]],
        "short": [[dog, 1]],
        "nothing": None,
    }
    here = Path(__file__).resolve().parent
    found = host.ask(
        here / "stack_inside.py", "--pack", here.parents[1], "--loras", loras, "--stacks", json.dumps(stacks)
    )
    assert found["two"] == [[dog, 1.0, 0.5, "a sks dog"], [ink, -2.0, 0.0, "ink, wash"]]
    assert found["three"] == [[ink, 2.0, 2.0, "ink, wash"], *[[dog, 2.0, 2.0, "a sks dog"]] * 2]
    assert found["none"] == []
    assert "LORA_STACK names gone.safetensors, which is not in the loras folders" in found["missing"]
    assert "broken.safetensors" in found["broken"]
    assert "not in the loras folders" in found["outside"]
    assert "no finite number" in found["not finite"]
    assert all("holds no LORA_STACK" in found[each] for each in ("short", "nothing"))
