"""A loader whose prompt is left empty: what it takes from the file, and what it says of that."""

from __future__ import annotations

import torch
from inside.stack import DOG, KEY, loras
from inside_host import of_the_pack, raised
from safetensors.torch import save_file


def loaded(name: str, prompt: str = "") -> tuple[str, str]:
    """The prompt in use, and the info."""
    loader = of_the_pack("nodes.run.load_lora")
    lora, info = loader.load_file(name, loader.LoaderSettings("style", prompt, 1.0, 64, "an ink wash"), None)
    return lora.prompt, info


def check_an_empty_prompt_is_made_of_what_the_file_says() -> None:
    tensors = {f"{KEY}.lora_up.weight": torch.ones(640, 2), f"{KEY}.lora_down.weight": torch.ones(2, 640)}
    with loras() as folder:
        save_file(tensors, folder / "Watercolor-style_v2.safetensors")
        save_file(tensors, folder / "tagged.safetensors", {"ss_tag_frequency": '{"a": {"wash": 9, "paper, ink": 8}}'})
        prompt, info = loaded("Watercolor-style_v2.safetensors")
        assert prompt == "Watercolor style"
        assert "this one is made of its file name" in info and "a whole prompt, such as 'an ink wash'" in info
        prompt, info = loaded("tagged.safetensors")
        assert prompt == "wash, paper, ink" and "made of the commonest tags of its training pictures" in info
        prompt, info = loaded(DOG)
        assert prompt == "a sks dog" and "made of its trigger phrase" in info
        assert loaded(DOG, " a whole prompt of mine ")[0] == "a whole prompt of mine"
        assert "left empty" not in loaded(DOG, "a whole prompt of mine")[1]


def check_what_never_was_a_file_has_no_name_to_go_by() -> None:
    loader = of_the_pack("nodes.run.load_lora")
    tensors = {f"{KEY}.lora_up.weight": torch.ones(640, 2), f"{KEY}.lora_down.weight": torch.ones(2, 640)}
    settings = loader.LoaderSettings("style", "", 1.0, 64, "an ink wash")
    assert "its prompt cannot be left empty" in raised(loader.load_connected, tensors, settings, None)
