"""LoRAs that are trained, attached to a model: one concept's, or a content and a style LoRA at once.

    y = W x + Σ up · (down · x)          over the LoRAs of the sample's branch: base, content, style or sum

    K, V = W x + ΔW_c x_c + ΔW_s x_s     where each LoRA reads a prompt of its own (prompt separation of UnZipLoRA)

The counterpart of `gated` for factors that change. They are float32; a forward uses them in its own dtype, and
their gradients come back in float32. A gradient passes through the model's frozen weights and never into them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..model.branches import Branch, branch_runs
from ..model.hooks import Change, add_low_rank, as_kernels, hooked_layers, require_low_rank_layers
from .trainable_lora import Side, TrainableLora

Texts = Mapping[str, Tensor]
"""{cross-attention layer: text states (1, tokens, width)}, see `per_lora_prompts.read_prompts`."""


class AttachedLoras:
    """The attached LoRAs. Made by `attach_loras`; `branches` says which of them each sample goes through.

    Attributes:
        loras: {role: TrainableLora}; what is put into them takes effect at once
        strength: multiplies all of them
    """

    def __init__(self, loras: Mapping[Side, TrainableLora]):
        self.loras = loras
        self.strength = 1.0
        self._runs: list[tuple[Branch, slice]] = []  # samples side by side that go through the same network
        self._texts: Mapping[Side, Texts] = {}

    @contextmanager
    def branches(self, branches: Sequence[Branch]) -> Generator[None, None, None]:
        """Sets the network of each sample of the forwards inside, and of their backward, if the model recomputes.

        Raises:
            RuntimeError: a branch needs gates, which only `gated` has.
        """
        if "merge" in branches:
            raise RuntimeError("LoRAs in training have no gates: their branches are base, content, style and sum")
        previous, self._runs = self._runs, branch_runs(branches)
        try:
            yield
        finally:
            self._runs = previous

    @contextmanager
    def per_lora_prompts(self, texts: Mapping[Side, Texts]) -> Generator[None, None, None]:
        """Inside, each LoRA of a sample in the branch `sum` reads its own prompt; the model reads the sample's."""
        previous, self._texts = self._texts, texts
        try:
            yield
        finally:
            self._texts = previous

    def add(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """A layer's output for the input x, (batch, …), plus what the LoRAs change; `output` is used up."""
        if not self._runs:
            raise RuntimeError("a model with attached LoRAs was run outside of AttachedLoras.branches")
        if self._runs[-1][1].stop != x.shape[0]:
            raise RuntimeError(f"{name} got a batch of {x.shape[0]} samples, but {self._runs[-1][1].stop} rows are set")
        whole = len(self._runs) == 1
        for branch, samples in self._runs:
            part, target = (x, output) if whole else (x[samples], output[samples])
            roles: list[Side] = [
                role for role, lora in self.loras.items() if branch in ("sum", role) and name in lora.up
            ]
            apart: list[Side] = [role for role in roles if branch == "sum" and name in self._texts.get(role, {})]
            for role in apart:
                self._add_one_prompt(name, module, role, target)
            together: list[Side] = [role for role in roles if role not in apart]
            if together:
                up, down = self._stack(name, module, together, x)
                target = add_low_rank(module, part, up, down, target)
            output = target if whole else output
        return output

    def _add_one_prompt(self, name: str, module: nn.Module, role: Side, target: Tensor) -> None:
        """The role's change for its own prompt, which is the same for all samples: (1, tokens, out) into each."""
        up, down = self._stack(name, module, [role], target)
        target += (self._texts[role][name].to(target) @ down.T) @ up.T

    def _stack(self, name: str, module: nn.Module, roles: Sequence[Side], like: Tensor) -> tuple[Tensor, Tensor]:
        """(up, down) of some LoRAs side by side in the dtype and on the device of a tensor; differentiable."""
        factors = [self.loras[role].factors(name) for role in roles]
        up = factors[0][0] if len(factors) == 1 else torch.cat([up for up, _ in factors], dim=1)  # (out, R)
        down = factors[0][1] if len(factors) == 1 else torch.cat([down for _, down in factors])  # (R, inputs)
        up = up if self.strength == 1.0 else self.strength * up
        return as_kernels(module, up.to(like), down.to(like))


@contextmanager
def attach_loras(
    modules: Mapping[str, nn.Module], loras: Mapping[Side, TrainableLora]
) -> Generator[AttachedLoras, None, None]:
    """Attaches LoRAs to a model's layers and takes them off again, whatever happens inside.

    Args:
        modules: {canonical layer: module} of the model

    Raises:
        ModelMismatchError: a layer of a LoRA is not in `modules`, or is neither linear nor an ungrouped convolution.
    """
    names = list(dict.fromkeys(name for lora in loras.values() for name in lora.up))
    require_low_rank_layers(modules, names)
    attached = AttachedLoras(loras)
    changes: list[tuple[str, Change]] = [(name, partial(attached.add, name)) for name in names]
    with hooked_layers(modules, changes):
        yield attached
