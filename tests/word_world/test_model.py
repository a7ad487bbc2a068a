"""Model, sampler, concept LoRAs and pre-training of a world on untrained weights: what holds before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.art_world.pretrain import pretraining, rate_of
from benchmarks.shapes_world.applied import applied, relative_norm
from benchmarks.word_model import WordDenoiser, WordModel, save_model
from benchmarks.word_pretraining import hushed, write_whole
from benchmarks.words import Split, labels
from duolora_core.model.denoiser import add_noise, model_output
from word_world.both import World

SPLIT: tuple[tuple[Split, ...], ...] = ("known",), ("dev", "test")


def test_a_latent_is_the_picture_and_has_about_unit_deviation(world: World) -> None:
    pictures, _ = world.pictures(22)
    latents = world.module.encode_picture(pictures)
    assert torch.allclose(world.module.decode_latent(latents), pictures, atol=1e-6)
    assert 0.8 < float(latents.std()) < 1.25


def test_a_prompt_is_a_token_for_each_kind_and_a_missing_word_is_one_of_its_kind(world: World) -> None:
    text = world.make().text
    whole = world.prompts[0]
    kinds = len(vars(whole))
    states, pooled = text([whole, replace(whole, style=None), type(whole)()])
    assert states.shape == (3, kinds, pooled.shape[1])
    assert torch.allclose(pooled, states.mean(1))
    others = [kind for kind in range(kinds) if kind != 1]
    assert torch.equal(states[0, others], states[1, others])
    assert torch.equal(states[1, 1], states[2, 1])
    assert len({tuple(token.tolist()) for token in states.flatten(0, 1)}) == 2 * kinds


def noised(world: World) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Any]]:
    """x, latents, sigma, noise and prompts."""
    pictures, prompts = world.pictures(3)
    latents, sigma = world.module.encode_picture(pictures), torch.tensor([0.05, 1.0, 14.0])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    x = torch.stack([add_noise(z, n, s) for z, n, s in zip(latents, noise, sigma, strict=True)])
    return x, latents, sigma, noise, prompts


@torch.no_grad()
def test_the_denoiser_undoes_what_the_network_puts_out(world: World, model: WordModel) -> None:
    """From our x0 follows the network's own output, v or the picture itself; the loss is that of v, within its limit.

    An error of x0 weighs 1 + 1 / sigma² as one of v; no noise level weighs more than 1 + emphasis.
    """
    x, latents, sigma, noise, prompts = noised(world)
    denoiser, output = WordDenoiser(model), model.output(x, sigma, prompts)
    x0 = denoiser(x, sigma, prompts)
    if model.predicts == "x0":
        assert torch.equal(x0, output)
    else:
        for i in range(3):
            assert torch.allclose(model_output(x[i], x0[i], sigma[i], denoiser.prediction), output[i], atol=2e-3)
    weight = (1 + sigma.pow(-2).clamp(max=model.emphasis)).view(-1, 1, 1, 1)
    expected = (weight * (x0 - latents).square()).mean()
    assert torch.allclose(model.loss(latents, sigma, noise, prompts), expected, rtol=1e-3)


@torch.no_grad()
def test_without_a_limit_the_loss_is_that_of_v(world: World, model: WordModel) -> None:
    plain = WordModel(model.unet.config, model.text, predicts=model.predicts).eval()
    plain.unet.load_state_dict(model.unet.state_dict())
    x, latents, sigma, noise, prompts = noised(world)
    found, perfect = (
        torch.stack([model_output(*each, "v") for each in zip(x, x0, sigma, strict=True)])
        for x0 in (plain(x, sigma, prompts), latents)
    )
    assert torch.allclose(plain.loss(latents, sigma, noise, prompts), (found - perfect).square().mean(), rtol=1e-3)


def test_sampling_with_the_true_pictures_ends_at_them(world: World) -> None:
    """Euler steps along a denoiser that knows x0 arrive at x0, whatever the guidance."""
    pictures, prompts = world.pictures(4)
    truth = world.module.encode_picture(pictures)

    def knowing(x: Tensor, _sigma: Tensor, _prompts: Sequence[Any]) -> Tensor:
        return truth.repeat(len(x) // len(truth), 1, 1, 1)

    found = world.sample(knowing, prompts, torch.Generator().manual_seed(1), steps=5)
    assert torch.allclose(found, pictures, atol=1e-5)


def test_weights_survive_the_file_and_a_missing_file_says_what_to_do(
    world: World, model: WordModel, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 16e6
    again = world.module.load_model(tmp_path / "m.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key  # random weights are such that float16 holds them
    with pytest.raises(FileNotFoundError, match=rf"{world.name}_world\.pretrain"):
        world.module.load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["content", "style"])
def test_a_concept_is_seen_beside_known_companions_alone(world: World, kind: str) -> None:
    other = "style" if kind == "content" else "content"
    table = {"content": world.module.CONTENTS, "style": world.module.STYLES}
    label = len(table[kind]) - 1
    prompts = world.concepts.concept_pictures(kind, label).prompts
    companions = {getattr(prompt, other) for prompt in prompts}
    assert {getattr(prompt, kind) for prompt in prompts} == {label}
    assert len(companions) == (8 if (world.name, kind) == ("art", "style") else 6)
    assert all(table[other][place].split == "known" for place in companions)


def test_a_concept_lora_lowers_its_own_loss_and_leaves_the_model(world: World, model: WordModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = world.concepts.ConceptConfig(steps=12, rank=2, batch=3, prior_pictures=8, learning_rate=2e-3)
    lora = world.concepts.train_concept(model, "content", world.novel, config)
    own = world.concepts.concept_pictures("content", world.novel, config)
    generator = torch.Generator().manual_seed(3)
    sigma, noise = torch.full((len(own.prompts),), 1.0), torch.randn(own.latents.shape, generator=generator)
    plain = float(model.loss(own.latents, sigma, noise, own.prompts))
    with applied(model, lora):
        assert float(model.loss(own.latents, sigma, noise, own.prompts)) < plain
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert relative_norm(model, lora) > 0


def test_a_missing_concept_is_named_with_what_makes_it(
    world: World, model: WordModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.concepts, "LORAS", tmp_path)
    maker = rf"python -m benchmarks\.{world.name}_world\.concepts"
    with pytest.raises(FileNotFoundError, match=rf"content_{world.novel_word}\.safetensors is not there.*{maker}"):
        world.concepts.load_concept(model, "content", world.novel)


def test_every_novel_entry_is_a_concept(world: World) -> None:
    dev, test = (set(world.concepts.novel_concepts(split)) for split in ("dev", "test"))
    tables = world.module.CONTENTS, world.module.STYLES
    assert not dev & test
    assert len(dev | test) == sum(entry.split != "known" for table in tables for entry in table)


def test_a_stopped_pretraining_goes_on_bit_for_bit(tmp_path: Path) -> None:
    make = partial(pretraining, batch=2, rate=partial(rate_of, 1.5e-3, warmup=2))
    whole, first, second = make(), make(), make(seed=5)
    for _ in range(3):
        whole.advance()
    first.advance()
    write_whole(tmp_path / "state.pt", lambda path: torch.save(first.state(), path))
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    second.advance()
    second.advance()
    assert second.step == whole.step == 3
    assert second.pictures == whole.pictures == 6
    assert second.loss == whole.loss
    for one, other in ((whole.model, second.model), (whole.average, second.average)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(whole.generator.get_state(), second.generator.get_state())


def test_a_save_that_fails_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    write_whole(path, lambda beside: beside.write_text("earlier"))

    def fails(beside: Path) -> None:
        beside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fails)
    assert path.read_text() == "earlier"


def test_novel_words_mean_hardly_more_than_a_missing_one(world: World, model: WordModel) -> None:
    tables = world.module.CONTENTS, world.module.STYLES
    quiet = hushed(model, [labels(table, "dev", "test") for table in tables]).text.words.weight
    words, text = model.text.words.weight, model.text
    for kind, table in enumerate(tables):
        known, novel = ([text.first[kind] + label for label in labels(table, *splits)] for splits in SPLIT)
        assert torch.equal(quiet[known], words[known])
        assert 0 < float((quiet[novel] - words[text.missing + kind]).std()) < 0.5
