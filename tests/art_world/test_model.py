"""The art world's model, sampler, pre-training and judge: what has to hold whatever the weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.art_world.calibration import accuracy, known_prompts, truths
from benchmarks.art_world.judge import Judge, check, load_judge, renders, save_judge
from benchmarks.art_world.model import CONFIG, ArtModel, Prompt, decode_latent, encode_picture, load_model, save_model
from benchmarks.art_world.names import CONTENTS, STYLES, labels
from benchmarks.art_world.pretrain import PretrainConfig, Pretraining, hushed, write_whole
from benchmarks.art_world.sample import sample
from benchmarks.word_model import WordDenoiser, WordModel
from duolora_core.model.denoiser import add_noise, model_output

SMALL = PretrainConfig(batch=2, warmup=2)


@pytest.fixture(scope="module")
def model() -> ArtModel:
    torch.manual_seed(0)
    return ArtModel().eval().requires_grad_(False)


def test_a_latent_is_the_picture() -> None:
    pictures = truths(known_prompts(8))
    assert torch.allclose(decode_latent(encode_picture(pictures)), pictures, atol=1e-6)


def test_latents_have_about_unit_deviation() -> None:
    assert 0.8 < float(encode_picture(truths(known_prompts(180))).std()) < 1.25


def test_a_prompt_is_three_tokens_and_a_missing_word_is_one_of_its_kind(model: ArtModel) -> None:
    states, pooled = model.text([Prompt(3, 2, 1), Prompt(3, None, 1), Prompt()])
    assert states.shape == (3, 3, pooled.shape[1])
    assert torch.allclose(pooled, states.mean(1))
    assert torch.equal(states[0, [0, 2]], states[1, [0, 2]])
    assert torch.equal(states[1, 1], states[2, 1])
    assert len({tuple(token.tolist()) for token in states.flatten(0, 1)}) == 6


@torch.no_grad()
def test_the_network_puts_out_the_picture(model: ArtModel) -> None:
    """The engine's x0 is the output itself, in whatever quantity it measures; the loss weighs no level above 6."""
    prompts, sigma = known_prompts(3), torch.tensor([0.05, 1.0, 14.0])
    latents = encode_picture(truths(prompts))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    x = torch.stack([add_noise(z, n, s) for z, n, s in zip(latents, noise, sigma, strict=True)])
    x0 = WordDenoiser(model)(x, sigma, prompts)
    assert torch.equal(x0, model.output(x, sigma, prompts))
    weight = torch.tensor([6.0, 2.0, 1 + 14.0**-2]).view(-1, 1, 1, 1)
    assert torch.allclose(model.loss(latents, sigma, noise, prompts), (weight * (x0 - latents).square()).mean())


@torch.no_grad()
def test_without_a_limit_the_loss_is_that_of_v(model: ArtModel) -> None:
    """The weight 1 + 1 / sigma² makes an error of x0 one of v."""
    plain = WordModel(CONFIG, model.text, predicts="x0").eval()
    plain.unet.load_state_dict(model.unet.state_dict())
    prompts, sigma = known_prompts(2), torch.tensor([0.3, 5.0])
    latents = encode_picture(truths(prompts))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    x = add_noise(latents, noise, sigma)
    found, perfect = (
        torch.stack([model_output(*each, "v") for each in zip(x, x0, sigma, strict=True)])
        for x0 in (plain(x, sigma, prompts), latents)
    )
    assert torch.allclose(plain.loss(latents, sigma, noise, prompts), (found - perfect).square().mean(), rtol=1e-4)


def test_sampling_with_the_true_pictures_ends_at_them() -> None:
    prompts = known_prompts(4)
    truth = encode_picture(truths(prompts))

    def knowing(x: Tensor, _sigma: Tensor, _prompts: Sequence[Prompt]) -> Tensor:
        return torch.cat([truth, truth]) if len(x) == 2 * len(truth) else truth

    found = sample(knowing, prompts, torch.Generator().manual_seed(1), steps=5)
    assert torch.allclose(found, truths(prompts), atol=1e-5)


def test_weights_survive_the_file_and_a_missing_file_says_what_to_do(model: ArtModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 16e6
    again = load_model(tmp_path / "m.safetensors")
    for key, value in model.state_dict().items():
        assert torch.allclose(again.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"art_world\.pretrain"):
        load_model(tmp_path / "none.safetensors")


def test_novel_words_mean_hardly_more_than_a_missing_one(model: ArtModel) -> None:
    words, quiet = model.text.words.weight, hushed(model).text.words.weight
    text = model.text
    for kind, table in enumerate((CONTENTS, STYLES)):
        known = [text.first[kind] + label for label in labels(table, "known")]
        novel = [text.first[kind] + label for label in labels(table, "dev", "test")]
        assert torch.equal(quiet[known], words[known])
        assert float((quiet[novel] - words[text.missing + kind]).std()) < 0.5


def test_a_stopped_pretraining_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = Pretraining(SMALL), Pretraining(SMALL), Pretraining(replace(SMALL, seed=5))
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


def test_the_judge_reads_renders_that_it_never_saw() -> None:
    generator = torch.Generator().manual_seed(77)
    contents = torch.arange(len(CONTENTS)).repeat(2)
    styles = torch.randint(len(STYLES), (len(contents),), generator=generator)
    found = load_judge().judge(renders(contents, styles, generator))
    assert float((found[0] == contents).float().mean()) >= 0.97
    assert float((found[1] == styles).float().mean()) >= 0.97


def test_the_judge_finds_the_real_drawings_right_and_at_no_distance() -> None:
    prompts = known_prompts(180)
    found = accuracy(truths(prompts), prompts, load_judge())
    assert found.both >= 0.97
    assert found.distance == 0
    assert found.other > 0.3


def test_a_judge_of_other_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "judge.safetensors"
    with pytest.raises(FileNotFoundError, match=r"art_world\.judge --train"):
        load_judge(path)
    judge = Judge().eval()
    save_judge(judge, path)
    assert torch.allclose(load_judge(path).content.weight, judge.content.weight, atol=1e-3)
    lines: list[str] = []
    check(judge, lines.append, each=1)
    assert len(lines) == 12
    monkeypatch.setattr("benchmarks.art_world.judge.STYLES", STYLES[:-1])
    with pytest.raises(ValueError, match="other names"):
        load_judge(path)
