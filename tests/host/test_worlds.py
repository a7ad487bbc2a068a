"""The benchmarks' worlds in the host: its own SDXL runs their weights, plain and with a LoRA in core's loader.

On random weights: identities, in float32, between a host's code and the benchmarks', which share nothing but the file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.shapes_world.applied import applied
from benchmarks.word_model import WordModel, save_model
from host.comfy_host import ComfyServer
from host.graphs import node
from host.world_graphs import WHOLE_TIMESTEPS, add_sampling, as_the_world_paints, world
from host.world_reference import folded
from random_world import random_lora, random_weights
from word_world.both import WORLDS, World

TEXTS = {
    "shapes": ["a sks1 in zwx2 style", "disc, ember", "pill", "slate", "", "sks8 zwx8"],
    "art": ["a sks16 in zwx4 style on a sky wall", "alarm_clock, ink", "night", ""],
}


@pytest.fixture(scope="module", params=WORLDS, ids=lambda each: each.name)
def of(request: pytest.FixtureRequest) -> World:
    return request.param


@pytest.fixture(scope="module")
def weights(of: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "random.safetensors"
    save_model(random_weights(of.make()), path)
    return path


@pytest.fixture(scope="module")
def model(of: World, weights: Path) -> WordModel:
    return of.module.load_model(weights)


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_hosts_sdxl_is_the_world(
    server: ComfyServer, of: World, weights: Path, model: WordModel, tmp_path: Path
) -> None:
    """x0 and its gradient, evaluated as in a merge: any noise level, whole prompts and parts of them."""
    texts = TEXTS[of.name]
    prompts = [of.prompt(text) for text in texts]
    assert len({str(prompt) for prompt in prompts}) == len(texts)
    sigma = torch.cat([model.sigmas[torch.linspace(0, 999, len(texts) - 1).long()], torch.tensor([3.21])])
    x = torch.randn(len(texts), of.module.CONFIG.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    x = x * (1 + sigma.square()).sqrt().view(-1, 1, 1, 1)
    save_file({"x": x, "sigma": sigma}, tmp_path / "given")
    graph = world(weights, of)
    files = {name: str(tmp_path / name) for name in ("given", "found")}
    graph["denoise"] = node(
        "DuoLoRATestDenoise", model=["world", 0], clip=["world", 1], prompts="\n".join(texts), **files
    )
    server.run(graph)
    found = load_file(tmp_path / "found")
    others = model(x, sigma, prompts[::-1])
    x.requires_grad_()
    x0 = model(x, sigma, prompts)
    (gradient,) = torch.autograd.grad(x0.square().mean(), [x])
    for i, expected in enumerate(x0.detach()):
        assert distance(found["x0"][i], expected) < 1e-5
        assert distance(found["gradient"][i], gradient[i]) < 1e-5
        assert distance(others[i], expected) > 1e-3


def test_a_ksampler_picture_is_the_worlds(server: ComfyServer, of: World, weights: Path, model: WordModel) -> None:
    """Ten Euler steps with guidance from the same seed and a LoRA in core's loader: latents and pictures."""
    name, text = f"{of.name}_lora.safetensors", TEXTS[of.name][0]
    save_file(random_lora(model, 8, seed=1), server.loras / name)
    graph = world(weights, of)
    graph["lora"] = node("LoraLoaderModelOnly", model=["world", 0], lora_name=name, strength_model=1.0)
    add_sampling(graph, text, model=["lora", 0], seed=5, steps=WHOLE_TIMESTEPS, cfg=4.0, count=2)
    graph["latents"] = node("SaveLatent", samples=["sampler", 0], filename_prefix=f"{of.name}_latents")
    history = server.run(graph)
    (path,) = (server.base / "output").glob(f"{of.name}_latents_*.latent")
    found = load_file(path)["latent_tensor"]

    plain = of.sampled_latents(model, text, seed=5, count=2, steps=WHOLE_TIMESTEPS, cfg=4.0)
    with applied(model, folded(server.loras / name, model)):
        expected = of.sampled_latents(model, text, seed=5, count=2, steps=WHOLE_TIMESTEPS, cfg=4.0)
    assert distance(plain, expected) > 0.1
    assert distance(found, expected) < 1e-5
    true = of.module.decode_latent(expected)
    pictures = as_the_world_paints(server.images(history)["save"], true.shape[-1])
    assert (pictures - true).abs().max() < 1.1 / 127.5  # the host cuts to 8 bits, it does not round
