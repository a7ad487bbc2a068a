"""The world's model, its sampler and its concept LoRAs on untrained weights: what has to hold before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.shapes_world.applied import applied, relative_norm
from benchmarks.shapes_world.cases import case_of
from benchmarks.shapes_world.concepts import ConceptConfig, concept_pictures, load_concept, train_concept
from benchmarks.shapes_world.model import (
    Prompt,
    ShapesDenoiser,
    ShapesModel,
    decode_latent,
    encode_picture,
    load_model,
    save_model,
)
from benchmarks.shapes_world.names import CONTENTS, STYLES, labels
from benchmarks.shapes_world.oracle import Oracle
from benchmarks.shapes_world.render import render
from benchmarks.shapes_world.sample import sample
from benchmarks.shapes_world.workbench import Workbench
from duolora_core.model.denoiser import add_noise, model_output


@pytest.fixture(scope="module")
def model() -> ShapesModel:
    torch.manual_seed(0)
    return ShapesModel().eval().requires_grad_(False)


def pictures(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return render(torch.arange(count), torch.arange(count), generator)


def test_a_latent_is_the_picture() -> None:
    assert torch.allclose(decode_latent(encode_picture(pictures(8))), pictures(8), atol=1e-6)


def test_latents_have_about_unit_deviation() -> None:
    assert 0.8 < float(encode_picture(pictures(22)).std()) < 1.25


def test_the_denoiser_undoes_what_the_network_puts_out(model: ShapesModel) -> None:
    """The engine's v from our x0 is the network's own output, and a perfect output gives the perfect x0 and no loss."""
    latents, noise = encode_picture(pictures(3)), torch.randn(3, 12, 16, 16)
    prompts, sigma = [Prompt(0, 1), Prompt(None, 2), Prompt()], torch.tensor([0.05, 1.0, 14.0])
    x = torch.stack([add_noise(z, n, s) for z, n, s in zip(latents, noise, sigma, strict=True)])
    denoiser = ShapesDenoiser(model)
    for i, x0 in enumerate(denoiser(x, sigma, prompts)):
        output = model_output(x[i], x0, sigma[i], denoiser.prediction)
        assert torch.allclose(output, model.output(x[i : i + 1], sigma[i : i + 1], prompts[i : i + 1])[0], atol=2e-3)
    v = torch.stack([model_output(x[i], latents[i], sigma[i], "v") for i in range(3)])
    expected = torch.mean((model.output(x, sigma, prompts) - v).square())
    assert torch.allclose(model.loss(latents, sigma, noise, prompts), expected, rtol=1e-4)


def test_sampling_with_the_true_pictures_ends_at_them() -> None:
    """Euler steps along a denoiser that knows x0 arrive at x0, whatever the guidance."""
    truth = encode_picture(pictures(4))

    def oracle(x: Tensor, _sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return torch.cat([truth, truth]) if len(prompts) == len(x) else truth

    found = sample(oracle, [Prompt(i, i) for i in range(4)], torch.Generator().manual_seed(1), steps=5)
    assert torch.allclose(found, pictures(4), atol=1e-5)


def test_a_concept_is_seen_in_six_known_companions() -> None:
    for kind, known in (("content", labels(STYLES, "known")), ("style", labels(CONTENTS, "known"))):
        prompts = concept_pictures(kind, 14).prompts  # type: ignore[arg-type]
        companions = {prompt.style if kind == "content" else prompt.content for prompt in prompts}
        assert len(companions) == 6
        assert companions <= set(known)


def test_a_concept_lora_lowers_its_own_loss_and_leaves_the_model(model: ShapesModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = ConceptConfig(steps=12, rank=2, batch=3, prior_pictures=20, learning_rate=2e-3)
    lora = train_concept(model, "content", 14, config)
    own = concept_pictures("content", 14, config)
    generator = torch.Generator().manual_seed(3)
    sigma, noise = torch.full((len(own.prompts),), 1.0), torch.randn(own.latents.shape, generator=generator)
    plain = float(model.loss(own.latents, sigma, noise, own.prompts))
    with applied(model, lora):
        assert float(model.loss(own.latents, sigma, noise, own.prompts)) < plain
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert relative_norm(model, lora) > 0


def test_a_missing_concept_lora_is_named_with_what_makes_it(
    model: ShapesModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is needed: applied alone, or as a side of a pair."""
    monkeypatch.setattr("benchmarks.shapes_world.concepts.LORAS", tmp_path)
    told = r"content_sks1\.safetensors is not there.*python -m benchmarks\.shapes_world\.concepts"
    case = case_of("sks1+zwx1")
    with pytest.raises(FileNotFoundError, match=told):
        load_concept(model, "content", case.content)
    with pytest.raises(FileNotFoundError, match=told):
        Workbench(model, Oracle()).pair(case)


def test_weights_survive_the_file_and_a_missing_file_says_what_to_do(model: ShapesModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 8 * 2**20
    again = load_model(tmp_path / "m.safetensors")
    for key, value in model.state_dict().items():
        assert torch.allclose(again.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    with pytest.raises(FileNotFoundError, match="pretrain"):
        load_model(tmp_path / "none.safetensors")
