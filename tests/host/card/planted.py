"""Mistakes of the kinds that a pretended card must find, each made inside a block."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from card.marks import CARD
from injection import replaced  # beside the script that runs
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

DENOISER = "pack:nodes.host.denoiser:HostDenoiser"
Original = Callable[..., Any]


def factor_on_the_host() -> AbstractContextManager[None]:
    """One factor of each LoRA stays where its file was read."""

    def make(original: Original) -> Original:
        def stack(*args: Any) -> Any:
            both = original(*args)
            return replace(both, up=both.up.cpu())

        return stack

    return replaced("pack:duolora_core.merge.gated:GatedLora._stack", make)


def gates_on_the_host() -> AbstractContextManager[None]:
    """What is trained lies on the host, and goes to the card for each forward."""

    def make(original: Original) -> Original:
        return lambda self, row: original(self, row).cpu()

    return replaced("pack:duolora_core.merge.gated:GatedLora._branch_gates", make)


def noise_on_the_host() -> AbstractContextManager[None]:
    def make(original: Original) -> Original:
        return lambda self, x, *args: original(self, x.cpu(), *args)

    return replaced(f"{DENOISER}.__call__", make)


def gradient_to_the_host() -> AbstractContextManager[None]:
    """In the middle of a backward pass."""

    def make(original: Original) -> Original:
        def forward(self: Any, *args: Any) -> Tensor:
            x0 = original(self, *args)
            if x0.requires_grad:
                x0.register_hook(lambda gradient: gradient.cpu())
            return x0

        return forward

    return replaced(f"{DENOISER}.__call__", make)


def last_gradient_on_the_host() -> AbstractContextManager[None]:
    """That of the numbers which are trained."""

    def make(original: Original) -> Original:
        def init(self: Any, parameters: list[Tensor], *args: Any, **kwargs: Any) -> None:
            parameters[0].register_hook(lambda gradient: gradient.cpu())
            original(self, parameters, *args, **kwargs)

        return init

    return replaced("torch.optim:AdamW.__init__", make)


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


def generator_of_the_host() -> AbstractContextManager[None]:
    """Starting noise that is made on the card by a generator that is not there."""

    def make(original: Original) -> Original:
        return lambda *_: torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0), device=CARD)

    return replaced("pack:nodes.host.pictures:starting_noise", make)


def memory_of_the_card_read() -> AbstractContextManager[None]:
    """A live sample is looked at where it lies."""

    def make(original: Original) -> Original:
        return lambda self, latent: original(self, torch.from_numpy(latent.numpy()))

    return replaced("pack:nodes.host.preview:LatentPreview.__call__", make)


def one_layer_in_another_dtype() -> AbstractContextManager[None]:
    def make(original: Original) -> Original:
        def load(models: list[Any], *args: Any, **kwargs: Any) -> None:
            original(models, *args, **kwargs)
            for network in (getattr(each.model, "diffusion_model", None) for each in models):
                if network is not None:
                    network.middle_block[0].in_layers[2].to(torch.bfloat16)

        return load

    return replaced("comfy.model_management:load_models_gpu", make)


def dtypes_of_the_file() -> AbstractContextManager[None]:
    """The copy of a streamed model as the host makes it: linear layers as in the file, others as it computes."""

    def make(original: Original) -> Original:
        return lambda patcher: patcher.clone(disable_dynamic=True)

    return replaced("pack:nodes.host.denoiser:plain_clone", make)


PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    each.__name__: each
    for each in (
        factor_on_the_host,
        gates_on_the_host,
        noise_on_the_host,
        gradient_to_the_host,
        last_gradient_on_the_host,
        sync_in_each_layer,
        generator_of_the_host,
        memory_of_the_card_read,
        one_layer_in_another_dtype,
        dtypes_of_the_file,
    )
}
