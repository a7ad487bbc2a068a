"""Fixtures for tests in real ComfyUI: one server per host and session, with a tiny checkpoint in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.shapes_world.model import ShapesModel, load_model
from benchmarks.word_model import save_model
from host.checkpoint_cache import tiny_checkpoint
from host.comfy_host import ComfyServer
from host.graphs import NARROW
from host.hosts import HOW_TO_ENABLE, Host, find_hosts
from host.lora_samples import Layer, attention_linears, load_layers, make_lora, text_layers
from host.merge_graphs import CONTENT, STYLE
from host.narrow import make_narrow_loras
from host.processes import share_out
from random_world import random_world

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOSTS = find_hosts()

collect_ignore = ["fixtures_pack", "inside", "tiny_checkpoint.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder carries the marker `host`."""
    inside = [item for item in items if item.path.is_relative_to(HERE)]
    for item in inside:
        item.add_marker(pytest.mark.host)
    share_out(inside)


@pytest.fixture(scope="session", params=HOSTS or [None], ids=[host.version for host in HOSTS] or ["no-host"])
def host(request: pytest.FixtureRequest) -> Host:
    """Each ComfyUI on this machine in turn."""
    if request.param is None:
        pytest.skip(HOW_TO_ENABLE)
    return request.param


@pytest.fixture(scope="session")
def checkpoint_file(host: Host) -> Path:
    """The tiny noise-predicting checkpoint on disk."""
    return tiny_checkpoint(host)


@pytest.fixture(scope="session")
def layers(checkpoint_file: Path) -> list[Layer]:
    """All linears and convolutions of the tiny checkpoint's UNet."""
    return load_layers(checkpoint_file.with_suffix(".layers.json"))


@pytest.fixture(scope="session")
def server(host: Host) -> Iterator[ComfyServer]:
    """A running server with this pack and the test-only nodes."""
    previews = ("--preview-method", "latent2rgb")
    with ComfyServer(host, pack_root=ROOT, fixtures_pack=HERE / "fixtures_pack", flags=previews) as running:
        yield running


@pytest.fixture(scope="session")
def checkpoint(server: ComfyServer, checkpoint_file: Path) -> str:
    """The name under which the server's CheckpointLoaderSimple finds the tiny checkpoint."""
    (server.checkpoints / "vega.safetensors").symlink_to(checkpoint_file)
    return "vega.safetensors"


def marked(server: ComfyServer, checkpoint_file: Path, *marks: str) -> str:
    """The tiny checkpoint with keys by which a loader knows what a model predicts."""
    name = f"vega_{'_'.join(marks)}.safetensors"
    save_file(load_file(checkpoint_file) | {mark: torch.zeros(1) for mark in marks}, server.checkpoints / name)
    return name


@pytest.fixture(scope="session")
def checkpoint_v(server: ComfyServer, checkpoint_file: Path) -> str:
    """The same for a v-predicting checkpoint."""
    return marked(server, checkpoint_file, "v_pred")


@pytest.fixture(scope="session")
def checkpoint_v_ztsnr(server: ComfyServer, checkpoint_file: Path) -> str:
    """The same for a v-predicting checkpoint with zero terminal SNR."""
    return marked(server, checkpoint_file, "v_pred", "ztsnr")


@pytest.fixture(scope="session")
def loras(server: ComfyServer, layers: list[Layer]) -> None:
    """A content LoRA (kohya, attention and text encoders, rank 8) and a style LoRA (diffusers, all layers, rank 4)."""
    make_lora(server.loras / CONTENT, attention_linears(layers), rank=8, alpha=4, te_layers=text_layers())
    make_lora(server.loras / STYLE, layers, diffusers=True, rank=4, seed=5, dtype=torch.bfloat16)


@pytest.fixture(scope="session")
def narrow(server: ComfyServer, checkpoint_file: Path, layers: list[Layer]) -> str:
    """The name that stands for the narrow model in a graph, for which there are two LoRAs then."""
    (server.checkpoints / NARROW).symlink_to(checkpoint_file)
    make_narrow_loras(server.loras, layers)
    return NARROW


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for the shapes world's model."""
    path = tmp_path_factory.mktemp("world") / "random.safetensors"
    save_model(random_world(), path)
    return path


@pytest.fixture(scope="session")
def model(weights: Path) -> ShapesModel:
    """The benchmarks' model with these weights."""
    return load_model(weights)
