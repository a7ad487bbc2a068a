"""Mistakes of the kinds that a pretended card must find, each made inside a block."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from card.marks import CARD
from injection import replaced  # beside the script that runs
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

DENOISER = "pack:nodes.host.denoiser:HostDenoiser"
PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {}
"""By name; what each is told by stands in `plants.py`."""

Original = Callable[..., Any]


def instead_of(target: str) -> Callable[[Original], Original]:
    """A mistake: what runs in the place of a function, which it is given first."""

    def named(mistake: Original) -> Original:
        def make(original: Original) -> Original:
            return lambda *args, **kwargs: mistake(original, *args, **kwargs)

        PLANTED[mistake.__name__] = partial(replaced, target, make)
        return mistake

    return named


@instead_of("pack:duolora_core.merge.gated:GatedLora._stack")
def factor_on_the_host(original: Original, *args: Any) -> Any:
    """One factor of each LoRA stays where its file was read."""
    both = original(*args)
    return replace(both, up=both.up.cpu())


@instead_of("pack:duolora_core.merge.gated:GatedLora._branch_gates")
def gates_on_the_host(original: Original, *args: Any) -> Any:
    """What is trained lies on the host, and goes to the card for each forward."""
    return original(*args).cpu()


@instead_of(f"{DENOISER}.__call__")
def noise_on_the_host(original: Original, denoiser: Any, x: Tensor, *args: Any) -> Any:
    return original(denoiser, x.cpu(), *args)


@instead_of(f"{DENOISER}.__call__")
def gradient_to_the_host(original: Original, *args: Any) -> Tensor:
    """In the middle of a backward pass."""
    x0 = original(*args)
    if x0.requires_grad:
        x0.register_hook(lambda gradient: gradient.cpu())
    return x0


@instead_of("torch.optim:AdamW.__init__")
def last_gradient_on_the_host(
    original: Original, optimiser: Any, parameters: list[Tensor], *args: Any, **kwargs: Any
) -> None:
    """That of the numbers which are trained."""
    parameters[0].register_hook(lambda gradient: gradient.cpu())
    original(optimiser, parameters, *args, **kwargs)


@instead_of("pack:nodes.host.pictures:starting_noise")
def generator_of_the_host(*_: Any) -> Tensor:
    """Starting noise that is made on the card by a generator that is not there."""
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0), device=CARD)


@instead_of("pack:nodes.host.preview:LatentPreview.__call__")
def memory_of_the_card_read(original: Original, preview: Any, latent: Tensor) -> Any:
    """A live sample is looked at where it lies."""
    return original(preview, torch.from_numpy(latent.numpy()))


@instead_of("comfy.model_management:load_models_gpu")
def one_layer_in_another_dtype(original: Original, models: list[Any], *args: Any, **kwargs: Any) -> None:
    original(models, *args, **kwargs)
    for network in (getattr(each.model, "diffusion_model", None) for each in models):
        if network is not None:
            network.middle_block[0].in_layers[2].to(torch.bfloat16)


@instead_of("pack:nodes.host.denoiser:plain_clone")
def dtypes_of_the_file(_: Original, patcher: Any) -> Any:
    """The copy of a streamed model as the host makes it: linear layers as in the file, others as it computes."""
    return patcher.clone(disable_dynamic=True)


@contextmanager
def sync_in_each_layer() -> Generator[None, None, None]:
    """Somebody looks at a number of every linear layer's output."""

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):
            output.detach().flatten()[0].item()

    handle = register_module_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


PLANTED["sync_in_each_layer"] = sync_in_each_layer
