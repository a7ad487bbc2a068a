"""Adapters decomposed on a graphics card, which is only pretended: nothing mixes devices, and the CPU steps in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duolora_core import lora_from_tensors, match_to_model
from duolora_core.lora.adapters import (
    CPU,
    Adapter,
    Boft,
    Dora,
    FullDifference,
    Glora,
    Ia3,
    Loha,
    Lokr,
    Oft,
    PlainLora,
    low_rank_of,
    nearest_on,
)
from factors import noise
from tiny import layout
from worlds import relative

CARD = torch.device("cuda", 0)
OUT, IN, RANK = 32, 24, 5
SHAPE = OUT, IN
PLAIN = PlainLora(noise(OUT, 3), noise(3, IN, seed=1) / 5, None, 2.0)
LOHA = Loha(noise(OUT, 3), noise(3, IN, seed=1), noise(OUT, 3, seed=2), noise(3, IN, seed=3), None, None, 2.0)
CORED = Loha(
    noise(3, OUT), noise(3, IN), noise(3, OUT, seed=2), noise(3, IN, seed=3), noise(3, 3, 1, 1), noise(3, 3, 1, 1), 2.0
)
ADAPTERS: dict[str, Adapter] = {
    "DoRA": Dora(PLAIN, 1 + noise(OUT) / 9, False),
    "DoRA of the base": Dora(PLAIN, 1 + noise(OUT, 1) / 9, True),
    "DoRA on LoHa": Dora(LOHA, 1 + noise(OUT) / 9, False),
    "exact LoHa": Loha(noise(OUT, 2), noise(2, IN), noise(OUT, 2), noise(2, IN), None, None, None),
    "LoHa": LOHA,
    "LoHa with cores": CORED,
    "LoKr": Lokr(noise(4, 6), None, None, None, noise(8, 2), noise(2, 4), None, 2.0),
    "OFT": Oft(noise(8, 4, 4) / 9, 0.2),
    "BOFT": Boft(noise(2, 8, 4, 4) / 9, 0.0, 1 + noise(OUT, 1) / 9),
    "GLoRA": Glora(noise(IN, 2), noise(2, IN), noise(OUT, 2), noise(2, IN), 1.0),
    "(IA)³": Ia3(noise(OUT, 1), False),
    "full difference": FullDifference(noise(OUT, IN)),
    "new weight": FullDifference(noise(OUT, IN), replaces=True),
}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the card was asked to do; see `tests/host/card`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "host"))
    activity = import_module("card.activity").Activity()
    with import_module("card.operators").CardOperators(activity), import_module("card.answers").CardAnswers(activity):
        yield activity


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("limit", [RANK, 64])
def test_the_card_finds_what_the_cpu_finds(kind: str, limit: int, card: Any) -> None:
    """The same change, loss and, up to signs, components, with every tensor on the card until the end."""
    adapter, weight = ADAPTERS[kind], noise(OUT, IN, seed=9)
    by_cpu, lost = low_rank_of(adapter, SHAPE, weight, limit)
    assert not card.kernels
    found, again = (nearest_on(CARD, adapter, SHAPE, weight, limit) for _ in range(2))
    assert found.by_cpu == "" and card.kernels
    assert found.low_rank.up.device == found.low_rank.down.device == CPU
    assert found.lost == pytest.approx(lost, abs=1e-5)
    assert found.low_rank.rank == by_cpu.rank
    for component in range(by_cpu.rank):
        one = torch.arange(by_cpu.rank) == component
        assert relative(found.low_rank.select(one).delta(), by_cpu.select(one).delta()) < 1e-3
    assert torch.equal(found.low_rank.up, again.low_rank.up) and torch.equal(found.low_rank.down, again.low_rank.down)


def test_on_the_cpu_nothing_changes() -> None:
    for adapter in ADAPTERS.values():
        expected, lost = low_rank_of(adapter, SHAPE, noise(OUT, IN, seed=9), RANK)
        found = nearest_on(CPU, adapter, SHAPE, noise(OUT, IN, seed=9), RANK)
        assert torch.equal(found.low_rank.up, expected.up) and torch.equal(found.low_rank.down, expected.down)
        assert (found.lost, found.by_cpu) == (lost, "")


@dataclass(frozen=True)
class TooLarge:
    """A difference for which the card has no memory."""

    difference: Tensor
    words: str
    kind = "difference"
    needs_weight = False

    def delta(self, shape: Sequence[int], weight: Tensor | None) -> Tensor:
        if self.difference.device.type == "cuda":
            raise RuntimeError(self.words)
        return self.difference


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "out of memory"),
        ("cusolver error: 7, when calling cusolverDnCreate", "cusolver error: 7, when calling cusolverDnCreate"),
    ],
)
def test_what_the_card_cannot_do_the_cpu_does_and_it_is_told(words: str, told: str, card: Any) -> None:
    adapter = TooLarge(noise(OUT, IN), words)
    expected, lost = low_rank_of(adapter, SHAPE, None, RANK)
    found = nearest_on(CARD, adapter, SHAPE, None, RANK)
    assert torch.equal(found.low_rank.up, expected.up) and torch.equal(found.low_rank.down, expected.down)
    assert (found.lost, found.by_cpu) == (lost, told)


def test_what_does_not_fit_is_the_adapters_fault(card: Any) -> None:
    with pytest.raises(ValueError, match="8 blocks of 4"):
        nearest_on(CARD, ADAPTERS["OFT"], (20, IN), noise(20, IN), RANK)


def test_no_product_is_rounded_to_tf32(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    seen: list[bool] = []
    qr: Any = torch.linalg.qr

    def watched(matrix: Tensor) -> Any:
        seen.append(torch.backends.cuda.matmul.allow_tf32 is True)
        return qr(matrix)

    monkeypatch.setattr(torch.linalg, "qr", watched)
    nearest_on(CARD, ADAPTERS["DoRA"], SHAPE, noise(OUT, IN), RANK)
    assert seen and not any(seen)
    assert torch.backends.cuda.matmul.allow_tf32


def test_a_file_is_decomposed_layer_by_layer_on_the_calling_thread(card: Any) -> None:
    """So that the card holds one layer at a time; what comes out lies on the CPU."""
    names = [f"input_blocks.4.1.transformer_blocks.0.attn1.to_{part}" for part in "qkv"]
    tensors = {f"lora_unet_{name.replace('.', '_')}.oft_blocks": 0.1 * noise(8, 4, 4) for name in names}
    asked: list[tuple[str, int]] = []

    def weight(name: str) -> Tensor:
        asked.append((name, threading.get_ident()))
        return noise(32, 32)

    file = lora_from_tensors(tensors, "turn.safetensors")
    placed = match_to_model(file, layout(), weight=weight, rank_limit=8, device=CARD)
    assert asked == [(name, threading.get_ident()) for name in names]
    assert card.kernels
    expected = match_to_model(file, layout(), weight=weight, rank_limit=8)
    for name, low_rank in placed.layers.items():
        assert low_rank.up.device == low_rank.down.device == CPU
        assert relative(low_rank.delta(), expected.layers[name].delta()) < 1e-4
        assert placed.approximations[name].by_cpu == ""
