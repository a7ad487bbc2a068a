"""The maths of one layer on a thread of its own: same results on any number of threads, and no trace left."""

from __future__ import annotations

import re
from threading import Thread, get_ident

import pytest
import torch

from duolora_core import LowRank, MergedLora, make_merged, make_pair
from duolora_core.errors import LoraFileError
from duolora_core.lora.parallel_layers import map_in_turn, map_layers
from factors import random_factors, shapes_of
from tiny import VARIED, layout, pick
from worlds import placed_lora, random_gates

NAMES = pick(VARIED)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> int:
    """PyTorch on that many threads, and as before afterwards."""
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(request.param)
    return request.param


def threads_of_a_new_thread() -> int:
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


def test_every_layer_is_alone_on_its_thread_and_in_order(threads: int) -> None:
    layers = {str(i): i for i in range(40)}
    made = map_layers(lambda name, layer: (name, 2 * layer, torch.get_num_threads()), layers)
    assert list(made) == list(layers)
    assert list(made.values()) == [(name, 2 * layer, 1) for name, layer in layers.items()]
    assert map_layers(lambda name, _: name, {}) == {}


def threads_of_libraries() -> list[int]:
    """How many threads PyTorch, OpenMP and MKL, where it is there, would use on the calling thread."""
    told = re.findall(r"(?:get_num_threads|max_threads)\(\) : (\d+)", torch.__config__.parallel_info())
    return [int(each) for each in told]


def test_no_library_shares_out_a_layer_and_all_are_as_before(threads: int) -> None:
    before = threads_of_libraries()
    layers = {str(i): torch.randn(300, 300) for i in range(8)}

    def measured(_: str, layer: torch.Tensor) -> list[int]:
        torch.linalg.qr(layer)
        return threads_of_libraries()

    made = map_layers(measured, layers)
    assert all(set(each) == {1} for each in made.values()), made
    assert threads_of_libraries() == before


def test_only_the_caller_sets_the_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the whole process's, and a worker that sets it does so while others compute."""
    setters: list[tuple[int, int]] = []
    set_num_threads = torch.set_num_threads

    def watched(count: int) -> None:
        setters.append((get_ident(), count))
        set_num_threads(count)

    monkeypatch.setattr(torch, "set_num_threads", watched)
    map_layers(lambda _, layer: layer @ layer, {str(i): torch.randn(50, 50) for i in range(20)})
    assert setters == [(get_ident(), 1), (get_ident(), threads)]


def test_one_after_another_is_the_same() -> None:
    layers = {str(i): torch.randn(60, 40) for i in range(5)}

    def basis(_: str, layer: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(layer).R

    one, other = map_layers(basis, layers), map_in_turn(basis, layers)
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in layers)


def broken(name: str, layer: int) -> int:
    if layer >= 5:
        raise LoraFileError(f"layer {name} is broken")
    return layer


def test_an_error_is_raised_as_it_is_and_leaves_the_threads_as_they_were(threads: int) -> None:
    with pytest.raises(LoraFileError, match="layer 5 is broken"):
        map_layers(broken, {str(i): i for i in range(40)})
    assert torch.get_num_threads() == threads == threads_of_a_new_thread()


def test_no_gradient_is_recorded() -> None:
    weight = torch.ones(3, requires_grad=True)
    assert not map_layers(lambda _, layer: layer * 2, {"a": weight})["a"].requires_grad


def merge(ranks: dict[str, int]) -> MergedLora:
    placed = [placed_lora(random_factors(shapes_of(ranks), ranks, seed)) for seed in (1, 2)]
    pair = make_pair(placed[0], placed[1], layout())
    return make_merged(pair, random_gates(pair))


def test_a_merge_is_the_same_on_any_number_of_threads(threads: int) -> None:
    """Bit for bit, with layers of many shapes and ranks; the basis of each is that of the layer by itself."""
    ranks = {name: 1 + i % 7 for i, name in enumerate(NAMES)}
    placed = placed_lora(random_factors(shapes_of(ranks), ranks, 1))
    folded = merge(ranks).fold(0.9, 1.1, max_rank=6)
    torch.set_num_threads(2)
    again = merge(ranks).fold(0.9, 1.1, max_rank=6)
    assert folded.error == again.error > 0
    assert folded.layers.keys() == again.layers.keys() == ranks.keys()
    for name, low_rank in folded.layers.items():
        assert torch.equal(low_rank.up, again.layers[name].up) and torch.equal(low_rank.down, again.layers[name].down)
    torch.set_num_threads(1)
    pair = make_pair(placed, placed, layout())
    for name, low_rank in placed.layers.items():
        alone: LowRank = low_rank.svd_basis()
        assert torch.equal(pair.content[name].up, alone.up) and torch.equal(pair.content[name].down, alone.down)
