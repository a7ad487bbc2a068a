"""DreamBooth LoRAs for novel contents and styles, from a handful of pictures (section 4 of arXiv 2504.13206).

    python -m benchmarks.shapes_world.concepts            # all eight contents and eight styles

A content concept is seen in six known styles and a style concept on six known contents, with prompts that name them:
shown in one style only, a content LoRA learns that style as well. Known pictures in the batch preserve the prior.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workers import side_by_side
from duolora_core import LoraFile, LowRank, kohya_state_dict, place, read_lora
from duolora_core.lora_save import write_safetensors
from duolora_core.merged import FoldedLora, unet_part

from .model import WEIGHTS, Prompt, ShapesModel, encode_picture, load_model
from .names import CONTENTS, SPLITS, STYLES, Entry, Split, labels
from .render import render

Kind = Literal["content", "style"]
TRANSFORMER_LINEARS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".proj", ".net.2", ".proj_in", ".proj_out")
"""Ends of the names of all linears around and in attention: what kohya's scripts train by default."""
LORAS = WEIGHTS / "loras"


@dataclass(frozen=True)
class ConceptConfig:
    """How a concept LoRA is trained.

    Attributes:
        companions: so many known entries of the other kind appear in its pictures
        strengths: each step applies the LoRA at a strength from this range. Trained at 1 alone, LoRAs of this size work
            at 1 alone; those that artists share hold over their dial.
    """

    rank: int = 8
    steps: int = 1200
    learning_rate: float = 1e-3
    batch: int = 8
    prior_batch: int = 4
    companions: int = 6
    pictures_each: int = 2
    strengths: tuple[float, float] = (0.6, 1.3)
    seed: int = 0
    layers: tuple[str, ...] = TRANSFORMER_LINEARS


@dataclass(frozen=True)
class Pictures:
    """A concept's few pictures: latents (n, 12, 16, 16) and the prompt of each."""

    latents: Tensor
    prompts: list[Prompt]


def concept_pictures(kind: Kind, label: int, config: ConceptConfig | None = None) -> Pictures:
    """The handful of pictures from which a concept is learned; the same for every call."""
    config = config or ConceptConfig()
    generator = torch.Generator().manual_seed(1000 + label + (500 if kind == "style" else 0))
    known = torch.tensor(labels(STYLES if kind == "content" else CONTENTS, "known"))
    companions = known[torch.randperm(len(known), generator=generator)[: config.companions]]
    others = companions.repeat_interleave(config.pictures_each)
    mine = torch.full_like(others, label)
    contents, styles = (mine, others) if kind == "content" else (others, mine)
    prompts = [Prompt(int(c), int(s)) for c, s in zip(contents, styles, strict=True)]
    return Pictures(encode_picture(render(contents, styles, generator)), prompts)


def train_concept(model: ShapesModel, kind: Kind, label: int, config: ConceptConfig | None = None) -> FoldedLora:
    """A LoRA on the linears of the frozen model's transformers for one novel word."""
    config = config or ConceptConfig()
    generator = torch.Generator().manual_seed(config.seed)
    own = concept_pictures(kind, label, config)
    known = torch.tensor(labels(CONTENTS, "known")), torch.tensor(labels(STYLES, "known"))
    names = [name for name in model.live_modules if name.endswith(config.layers)]
    strength = torch.ones(())
    with _trainable(model, names, config.rank, strength, generator) as factors:
        parameters = [tensor for pair in factors.values() for tensor in pair]
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * min(1.0, step / 20, (config.steps - step) / (config.steps / 2))
            pick = torch.randint(len(own.prompts), (config.batch,), generator=generator)
            contents, styles = (t[torch.randint(len(t), (config.prior_batch,), generator=generator)] for t in known)
            latents = torch.cat([own.latents[pick], encode_picture(render(contents, styles, generator))])
            prompts = [own.prompts[i] for i in pick]
            prompts += [Prompt(int(c), int(s)) for c, s in zip(contents, styles, strict=True)]
            sigma = model.sigmas[torch.randint(len(model.sigmas), (len(prompts),), generator=generator)]
            noise = torch.randn(latents.shape, generator=generator)
            strength.uniform_(*config.strengths, generator=generator)
            loss = model.loss(latents, sigma, noise, prompts)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        layers = {name: LowRank(up.detach(), down.detach()) for name, (up, down) in factors.items()}
    shapes = {name: model.layout.layers[name].shape for name in names}
    return FoldedLora(layers, {}, {}, shapes, 0.0)


@contextmanager
def _trainable(
    model: ShapesModel, names: list[str], rank: int, strength: Tensor, generator: torch.Generator
) -> Generator[dict[str, tuple[Tensor, Tensor]], None, None]:
    """{layer: (up (out, rank), down (rank, in))}, attached while inside at `strength`, (); up starts at zero."""
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    handles: list[Any] = []
    try:
        for name in names:
            module = model.live_modules[name]
            out, inputs = module.get_parameter("weight").shape
            down = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
            factors[name] = (torch.zeros(out, rank).requires_grad_(), down.requires_grad_())
            handles.append(module.register_forward_hook(_adding(*factors[name], strength)))
        yield factors
    finally:
        for handle in handles:
            handle.remove()


def _adding(up: Tensor, down: Tensor, strength: Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + strength * F.linear(F.linear(args[0], down), up)

    return hook


def lora_path(kind: Kind, label: int) -> Path:
    entry = (CONTENTS if kind == "content" else STYLES)[label]
    return LORAS / f"{kind}_{entry.name}.safetensors"


def read_concept(kind: Kind, label: int) -> LoraFile:
    """A committed concept LoRA, read the way any LoRA file is read.

    Raises:
        FileNotFoundError: it is not trained yet; says how to make it.
    """
    path = lora_path(kind, label)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. Make it with: python -m benchmarks.shapes_world.concepts")
    return read_lora(path)


def load_concept(model: ShapesModel, kind: Kind, label: int) -> FoldedLora:
    """A committed concept LoRA as the model takes it; raises as `read_concept`."""
    layout = model.layout
    return unet_part(place(read_concept(kind, label), layout), layout)


def novel_concepts(*splits: Split) -> list[tuple[Kind, int]]:
    """Every content and every style of these splits."""
    tables: tuple[tuple[Kind, tuple[Entry, ...]], ...] = (("content", CONTENTS), ("style", STYLES))
    return [(kind, label) for kind, table in tables for label in labels(table, *splits)]


def make_file(concept: tuple[Kind, int]) -> str:
    """Trains one concept and replaces its file; the file's name."""
    path = lora_path(*concept)
    state = kohya_state_dict(train_concept(load_model(), *concept))
    path.unlink(missing_ok=True)
    write_safetensors(path, state, {"ss_base_model_version": "shapes_world"})
    return path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", nargs="+", choices=SPLITS[1:], default=SPLITS[1:])
    wanted = parser.parse_args()
    for _, name in side_by_side(make_file, novel_concepts(*wanted.splits)):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
