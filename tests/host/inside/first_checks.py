"""What a merge says in its first second: what fits, what the combined prompt lacks, and disks that are nearly full."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from inside_host import of_the_pack

WHOLE = "a photo of sks dog", "a painting in wtrclr style"


def checked(combined: str, free: int = 2**40, resumable: bool = True) -> tuple[list[str], str]:
    """The warnings of a merge of two LoRAs of 1 MiB each in half precision, and what the node shows."""
    checks: Any = of_the_pack("nodes.run.first_checks")
    low_rank = SimpleNamespace(up=torch.zeros(2**18), down=torch.zeros(2**18))
    files = [SimpleNamespace(name=name) for name in ("dog.safetensors", "ink.safetensors")]
    loaded = [SimpleNamespace(file=file, prompt=prompt) for file, prompt in zip(files, WHOLE, strict=True)]
    placed = SimpleNamespace(
        loras=[SimpleNamespace(file=file, layers={"a": low_rank}, text={}) for file in files],
    )
    shown: list[str] = []
    with mock.patch.object(checks, "tell", shown.append), mock.patch.object(checks, "free_bytes", lambda _: free):
        warnings = checks.first_checks(loaded, placed, [combined], resumable)
    (text,) = shown
    return warnings, text


def check_nothing_is_warned_of_where_all_is_well() -> None:
    warnings, shown = checked("a sks dog in wtrclr style")
    assert warnings == []
    assert "dog.safetensors 1, ink.safetensors 1" in shown and "nothing to say" in shown


def check_a_lora_that_the_combined_prompt_does_not_name_is_warned_of_at_once() -> None:
    (warning,), shown = checked("a sks dog on the grass")
    assert "no word of the prompt of ink.safetensors, 'a painting in wtrclr style'" in warning and warning in shown


def check_a_disk_that_is_nearly_full_is_warned_of_with_what_it_needs() -> None:
    whole = "a sks dog in wtrclr style"
    warnings, _ = checked(whole, free=2**20)
    assert [("about 2 MB" in each, "about 64 MB" in each) for each in warnings] == [(True, False), (False, True)]
    assert len(checked(whole, free=2**20, resumable=False)[0]) == 1
    (unfinished,) = checked(whole, free=2**23)[0]
    assert "goes on from" in unfinished


def check_the_disk_of_a_folder_that_is_not_there_yet_is_asked() -> None:
    files: Any = of_the_pack("nodes.host.files")
    assert files.free_bytes(files.saving_folder() / "not" / "there") == files.free_bytes(files.saving_folder())
