"""The art world in the host: its own SDXL runs the benchmarks' weights, plain and with a LoRA in core's loader.

All on random weights: they are identities, in float32, between a host's code and the benchmarks', which share nothing
but the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.art_world.model import ArtModel, Prompt, decode_latent, load_model, save_model
from benchmarks.art_world.names import BACKGROUNDS, CONTENTS, STYLES
from benchmarks.art_world.sample import sample
from benchmarks.shapes_world.applied import applied
from duolora_core import match_to_model, read_lora
from duolora_core.lora.folded import unet_part
from host.comfy_host import ComfyServer
from host.graphs import Graph, node
from host.world_graphs import add_sampling
from random_world import random_lora, random_weights

LORA = "art_world.safetensors"
TEXTS = {
    "a sks16 in zwx4 style on a sky wall": Prompt(len(CONTENTS) - 1, len(STYLES) - 1, 2),
    "alarm_clock, ink": Prompt(1, 2, None),
    "night": Prompt(None, None, 5),
    "": Prompt(),
}
WHOLE_TIMESTEPS = 10
"""Steps at which the host's "normal" schedule takes whole timesteps (999 / 9 = 111), as the benchmarks' always does."""


@pytest.fixture(scope="module")
def art_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("art") / "random.safetensors"
    save_model(random_weights(ArtModel()), path)
    return path


@pytest.fixture(scope="module")
def art_model(art_weights: Path) -> ArtModel:
    return load_model(art_weights)


def world(weights: Path) -> Graph:
    """MODEL, CLIP and VAE of the art world in node "world"."""
    tables = {"contents": [e.name for e in CONTENTS], "styles": [e.name for e in STYLES], "backgrounds": [*BACKGROUNDS]}
    words = {kind: " ".join(names) for kind, names in tables.items()}
    return {"world": node("DuoLoRATestArtWorld", weights=str(weights), **words)}


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def sampled(model: ArtModel, prompt: Prompt, seed: int, count: int) -> Tensor:
    """(count, 48, 16, 16): the guided x0 of the last step."""
    last: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        last[:] = [model(x, sigma, prompts)]
        return last[0]

    sample(denoise, [prompt] * count, torch.Generator().manual_seed(seed), WHOLE_TIMESTEPS, cfg=3.0)
    with_prompt, without = last[0].chunk(2)
    return without + 3.0 * (with_prompt - without)


def test_the_hosts_sdxl_is_the_world(
    server: ComfyServer, art_weights: Path, art_model: ArtModel, tmp_path: Path
) -> None:
    """x0 and its gradient, evaluated as in a merge: any noise level, whole prompts and parts of them."""
    sigma = torch.cat([art_model.sigmas[[0, 500, 999]], torch.tensor([3.21])])
    x = torch.randn(len(TEXTS), 48, 16, 16, generator=torch.Generator().manual_seed(1))
    x = x * (1 + sigma.square()).sqrt().view(-1, 1, 1, 1)
    save_file({"x": x, "sigma": sigma}, tmp_path / "given")
    graph = world(art_weights)
    graph["denoise"] = node(
        "DuoLoRATestDenoise",
        model=["world", 0],
        clip=["world", 1],
        prompts="\n".join(TEXTS),
        given=str(tmp_path / "given"),
        found=str(tmp_path / "found"),
    )
    server.run(graph)
    found = load_file(tmp_path / "found")
    prompts = list(TEXTS.values())
    others = art_model(x, sigma, prompts[::-1])
    x.requires_grad_()
    x0 = art_model(x, sigma, prompts)
    (gradient,) = torch.autograd.grad(x0.square().mean(), [x])
    for i, expected in enumerate(x0.detach()):
        assert distance(found["x0"][i], expected) < 1e-5
        assert distance(found["gradient"][i], gradient[i]) < 1e-5
        assert distance(others[i], expected) > 1e-3


def test_a_ksampler_picture_is_the_worlds(server: ComfyServer, art_weights: Path, art_model: ArtModel) -> None:
    """Ten Euler steps with guidance from the same seed and a LoRA in core's loader: latents and pictures."""
    save_file(random_lora(art_model, 4, seed=1), server.loras / LORA)
    text, prompt = next(iter(TEXTS.items()))
    graph = world(art_weights)
    graph["lora"] = node("LoraLoaderModelOnly", model=["world", 0], lora_name=LORA, strength_model=1.0)
    add_sampling(graph, text, model=["lora", 0], seed=5, steps=WHOLE_TIMESTEPS, cfg=3.0, count=2)
    graph["latents"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="art_world")
    history = server.run(graph)
    (path,) = (server.base / "output").glob("art_world_*.latent")
    found = load_file(path)["latent_tensor"]

    layout = art_model.layout
    plain = sampled(art_model, prompt, seed=5, count=2)
    with applied(art_model, unet_part(match_to_model(read_lora(server.loras / LORA), layout), layout)):
        expected = sampled(art_model, prompt, seed=5, count=2)
    assert distance(plain, expected) > 0.1
    assert distance(found, expected) < 1e-5
    images = torch.stack([torch.from_numpy(image.copy()) for image in server.images(history)["save"]]).movedim(-1, 1)
    pictures = torch.nn.functional.avg_pool2d(images.float(), 2) / 127.5 - 1
    assert (pictures - decode_latent(expected)).abs().max() < 1.1 / 127.5  # the host cuts to 8 bits, it does not round
