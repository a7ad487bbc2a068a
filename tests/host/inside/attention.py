"""Attention in a training: the host's own mathematics, and never on cuDNN."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch
from inside.models import file_of_weights, sdxl, teacher_and_student
from inside_host import of_the_pack
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def check_attention_is_the_hosts_on_pytorch() -> None:
    """Every form of mask, with heads apart or not on the way in and out."""
    ours = of_the_pack("nodes.host.attention").differentiable_attention
    batch, heads, tokens, keys, width = 2, 4, 12, 7, 8
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    flat = [random(batch, each, heads * width) for each in (tokens, keys, keys)]
    split = [random(batch, heads, each, width) for each in (tokens, keys, keys)]
    shapes = (tokens, keys), (batch, tokens, keys), (batch, heads, tokens, keys)
    masks = [None, *(random(*shape) for shape in shapes), random(tokens, keys) > -1]
    for mask, skip, skip_output in itertools.product(masks, (False, True), (False, True)):
        given = (*(split if skip else flat), heads)
        options = {"mask": mask, "skip_reshape": skip, "skip_output_reshape": skip_output}
        expected = attention_pytorch(*given, **options)
        found = ours(attention_pytorch, *given, transformer_options={}, **options)
        assert torch.equal(found, expected), (None if mask is None else mask.shape, skip, skip_output)


def check_attention_never_runs_on_cudnn() -> None:
    """Teacher, student and recomputed blocks, on a host that puts cuDNN first; afterwards it may again."""
    allowed: list[bool] = []
    of_torch = F.scaled_dot_product_attention

    def spied(*args: Any, **kwargs: Any) -> Tensor:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return of_torch(*args, **kwargs)

    def cudnn_first(*args: Any, **kwargs: Any) -> Tensor:  # what the host does where there is a card
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH], set_priority=True):
            return F.scaled_dot_product_attention(*args, **kwargs)

    with (
        mock.patch.object(F, "scaled_dot_product_attention", spied),
        mock.patch.object(comfy.ops, "scaled_dot_product_attention", cudnn_first),
    ):
        teacher_and_student(sdxl(torch.float32, None, file_of_weights(torch.float32)))
    assert allowed and not any(allowed)
    assert torch.backends.cuda.cudnn_sdp_enabled()
