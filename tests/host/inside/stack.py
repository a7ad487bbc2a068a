"""A LORA_STACK of any length, as Lora Manager, Efficiency and rgthree hand it on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import folder_paths
import torch
from inside_host import of_the_pack
from safetensors.torch import save_file

KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
DOG, INK, BROKEN = "dog.safetensors", "sub/ink.v2.safetensors", "broken.safetensors"


@contextmanager
def loras() -> Generator[Path, None, None]:
    """A loras folder of three files, the only one that the host has; one file's trigger words lie beside it."""
    tensors = {f"{KEY}.lora_up.weight": torch.ones(640, 2), f"{KEY}.lora_down.weight": torch.ones(2, 640)}
    with TemporaryDirectory() as named:
        folder = Path(named)
        (folder / INK).parent.mkdir()
        save_file(tensors, folder / DOG, {"modelspec.trigger_phrase": "a sks dog"})
        save_file(tensors, folder / INK)
        (folder / INK).with_name("ink.v2.metadata.json").write_text('{"civitai": {"trainedWords": ["ink", "wash"]}}')
        (folder / BROKEN).write_bytes(b"no safetensors file")
        with (
            mock.patch.dict(folder_paths.folder_names_and_paths, {"loras": ([named], {".safetensors"})}),
            mock.patch.dict(folder_paths.filename_list_cache, clear=True),
        ):
            yield folder


def loaded(stack: Any) -> list[tuple[Any, ...]]:
    """At twice its strengths."""
    loader = of_the_pack("nodes.run.load_lora")
    settings = loader.LoaderSettings("style", "", 2.0, 64, "an ink wash")
    found = [lora for lora, _ in loader.load_stack(stack, settings, None)]
    assert all(each.role == "style" and each.pictures is None for each in found)
    return [(each.file.name, each.strength, each.text_strength, each.prompt) for each in found]


def refused(stack: Any) -> str:
    try:
        loaded(stack)
    except of_the_pack("duolora_core.errors").DuoLoraError as error:
        return str(error)
    raise AssertionError(f"{stack} was taken")


def check_every_lora_of_a_stack_is_loaded_with_its_strengths() -> None:
    """In its order, at its own strengths times the loader's, under its own trigger words; "None" is no LoRA."""
    dog, ink = (DOG, 2.0, 2.0, "a sks dog"), ("ink.v2.safetensors", 2.0, 2.0, "ink, wash")
    with loras():
        stack = [(DOG, 0.5, 0.25), ("None", 1.0, 1.0), (INK.replace("/", "\\"), -1.0, 0.0), ("", 1, 1)]
        assert loaded(stack) == [(DOG, 1.0, 0.5, "a sks dog"), ("ink.v2.safetensors", -2.0, 0.0, "ink, wash")]
        assert loaded([("sub/ink.v2", 1, 1), (DOG, 1, 1), (DOG, 1, 1)]) == [ink, dog, dog]


def check_what_is_wrong_with_a_stack_is_named() -> None:
    with loras():
        assert "is empty" in refused([("None", 1, 1)])
        gone = refused([(DOG, 1, 1), ("gone.safetensors", 1, 1)])
        assert "LORA_STACK names gone.safetensors, which is not in the loras folders" in gone
        assert "not in the loras folders" in refused([("../../secret.safetensors", 1, 1)])
        assert BROKEN in refused([(BROKEN, 1, 1)])
        assert "no finite number" in refused([(DOG, float("nan"), 1)])
        for wrong in ([(DOG, 1)], [(1, 1, 1)], None, "dog"):
            assert "holds no LORA_STACK" in refused(wrong)
