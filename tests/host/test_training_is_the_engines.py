"""On the shapes world in the host, what the trainers' nodes save is what the engine reaches alone, without a host.

Random weights, float32: an identity between the host's model, VAE and prompts and the benchmarks', which share nothing
but the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.shapes_world.model import ShapesDenoiser, ShapesModel, encode_picture
from benchmarks.shapes_world.render import render
from duolora_core import kohya_state_dict
from duolora_core.merge.merged import joined
from duolora_core.train_lora import (
    Example,
    LoraConfig,
    TrainConfig,
    UnzipConfig,
    UnzipPrompts,
    attach_loras,
    b_loras,
    concept_lora,
    train_lora,
    unzip,
    unzip_loras,
)
from duolora_core.train_lora.trainable_lora import Side, TrainableLora
from host.comfy_host import ComfyServer
from host.graphs import Graph
from host.training_graphs import add_training, saved_lora
from host.world_graphs import SIDE, add_pictures, world
from word_world.both import SHAPES

prompt = SHAPES.prompt
JOINT, CONTENT, STYLE, CLASS = "sks1 zwx2", "sks1", "zwx2", "disc"
CONFIG = TrainConfig(steps=4, learning_rate=1e-3, batch=2, micro_batch=4, seed=7)
FORM = LoraConfig(rank=4)

Loras = dict[Side, TrainableLora]


def drawn(server: ComfyServer, graph: Graph, name: str, count: int) -> tuple[list[Any], Tensor]:
    """The link to a batch of pictures, and their latents as the benchmarks encode them."""
    labels = torch.tensor([14, 3, 20][:count]), torch.tensor([1, 15, 21][:count])
    link, held = add_pictures(server, graph, name, render(*labels, torch.Generator().manual_seed(len(name))))
    return link, encode_picture(held)


def in_the_host(
    server: ComfyServer, graph: Graph, pictures: list[Any], prefix: str, **inputs: Any
) -> dict[str, Tensor]:
    given: dict[str, Any] = {"model": ["world", 0], "clip": ["world", 1], "vae": ["world", 2]}
    given |= {"resolution": SIDE, "steps": CONFIG.steps, "seed": CONFIG.seed, "learning_rate": CONFIG.learning_rate}
    return saved_lora(server, add_training(server, graph, pictures, **given | inputs), prefix)


def without_a_host(loras: Loras) -> dict[str, Tensor]:
    folded = {side: lora.fold() for side, lora in loras.items()}
    return kohya_state_dict(joined(folded.get("content"), folded.get("style")).fold(), torch.float32)


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The mean difference of the trained factors `up`, which begin at 0, relative to their mean size.

    Not the largest: the first step of AdamW goes a whole step by the sign of a gradient, however near to 0 it is.
    """
    assert found.keys() == expected.keys()
    ups = [key for key in expected if key.endswith("lora_up.weight")]
    size = torch.cat([expected[key].abs().flatten() for key in ups]).mean()
    return float(torch.cat([(found[key] - expected[key]).abs().flatten() for key in ups]).mean() / size)


@pytest.mark.parametrize("role", ["content", "both (B-LoRA)"])
def test_train_concept(server: ComfyServer, weights: Path, model: ShapesModel, role: str) -> None:
    """Three pictures, two of a class, batches of two, v-prediction; other pictures give another LoRA."""
    graph = world(weights)
    (pictures, latents), (others, other_latents) = drawn(server, graph, "mine", 3), drawn(server, graph, "class", 2)
    asked: dict[str, Any] = {"role": role, "prompt": JOINT, "class_prompt": CLASS, "class_pictures": others}
    found = in_the_host(server, graph, pictures, f"engine/{role[:4]}", batch_size=2, **asked)

    denoiser = ShapesDenoiser(model)

    def trained(mine: Tensor) -> dict[str, Tensor]:
        seeded = FORM, CONFIG.seed
        loras = concept_lora(denoiser.layout, "content", *seeded) if role == "content" else None
        loras = loras or b_loras(denoiser.layout, *seeded)
        examples = [Example(latent, prompt(JOINT)) for latent in mine]
        classes = [Example(latent, prompt(CLASS)) for latent in other_latents]
        with attach_loras(denoiser.modules, loras) as attached:
            for _ in train_lora(denoiser, attached, examples, CONFIG, class_examples=classes):
                pass
        return without_a_host(loras)

    assert distance(found, trained(latents)) < 1e-3
    assert distance(found, trained(latents.flip(0))) > 0.1


def test_unzip(server: ComfyServer, weights: Path, model: ShapesModel) -> None:
    """Each LoRA reads its own prompt, and the columns that are opened are the same; another prompt gives others."""
    graph = world(weights)
    picture, latents = drawn(server, graph, "one", 1)
    asked: dict[str, Any] = {"prompt": JOINT, "content_prompt": CONTENT, "style_prompt": STYLE}
    found = in_the_host(server, graph, picture, "engine/unzip", kind="UnZipImage", **asked)

    denoiser = ShapesDenoiser(model)
    learning = TrainConfig(steps=CONFIG.steps, learning_rate=CONFIG.learning_rate, micro_batch=4, seed=CONFIG.seed)
    config = UnzipConfig(learning=learning)

    def unzipped(style: str) -> dict[str, Tensor]:
        loras = unzip_loras(denoiser.layout, FORM, config, CONFIG.seed)
        prompts = UnzipPrompts(prompt(JOINT), prompt(CONTENT), prompt(style))
        with attach_loras(denoiser.modules, loras) as attached:
            for _ in unzip(denoiser, attached, list(latents), prompts, config):
                pass
        return without_a_host(loras)

    assert distance(found, unzipped(STYLE)) < 1e-3
    assert distance(found, unzipped("zwx3")) > 0.01
