"""A MODEL's weights, made usable for a backward pass: ordinary tensors, in the model's dtypes, without copies."""

# The registries of nn.Module are the only place where one tensor can be swapped for another.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...duolora_core.errors import ModelMismatchError
from ...duolora_core.model.frozen_layer import alias_of


def plain_clone(patcher: Any) -> Any:
    """A clone whose weights are ordinary tensors in their own dtypes, also on hosts that stream them from disk.

    Raises:
        ModelMismatchError: the host cannot load this model in any other way.
    """
    if not getattr(patcher, "is_dynamic", lambda: False)():
        return patcher.clone()
    if getattr(patcher, "cached_patcher_init", None) is None:
        raise ModelMismatchError(
            "This model is streamed into the graphics card piece by piece, and its loader offers no other way. Load it "
            "with Load Checkpoint or Load Diffusion Model."
        )
    clone = patcher.clone(disable_dynamic=True)
    if clone.model is not patcher.model:  # loaded again, for this clone alone
        _cast_to_model_dtypes(clone.model)
        clone.size = 0  # its bytes are counted again when they are asked for
    return clone


def _cast_to_model_dtypes(model: nn.Module) -> None:
    """Gives each weight the dtype that its layer was built for, as the host's own streaming does at every use.

    A host that can stream loads a linear layer's weight in the dtype of the file, also for a model that is then not
    streamed, and leaves the layer's dtype beside it. Nothing casts there, so a bf16 or fp32 file met fp16 activations,
    and weights that were asked for in fp8 were none.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            dtype = getattr(module, f"{name}_comfy_model_dtype", None)
            if dtype not in (None, parameter.dtype) and type(parameter) is nn.Parameter:
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))


@contextmanager
def differentiable(model: nn.Module) -> Generator[None, None, None]:
    """Leaves inference mode, with plain frozen aliases in place of all parameters and buffers of `model`.

    ComfyUI runs nodes under `torch.inference_mode`, and autograd refuses to save the tensors created there. An alias
    shares the storage, so nothing is copied. On the way out, whatever happened, the original objects are put back.
    Tensor subclasses (quantised weights) stay as they are: their kernels dequantise into fresh tensors.
    """
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as originals:
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if type(parameter) is nn.Parameter:
                    alias = nn.Parameter(alias_of(parameter), requires_grad=False)
                    originals.callback(module._parameters.__setitem__, name, parameter)
                    module._parameters[name] = alias
            for name, buffer in list(module._buffers.items()):
                if type(buffer) is Tensor:
                    alias = alias_of(buffer)
                    originals.callback(module._buffers.__setitem__, name, buffer)
                    module._buffers[name] = alias
        yield
