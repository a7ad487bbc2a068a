"""Attention with a backward pass that can be relied on, in place of whatever the host chose for sampling."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def differentiable_attention(
    _chosen: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **options: Any,
) -> Tensor:
    """softmax(q kᵀ / √width + mask) v for each head, as an `optimized_attention_override` of the host.

    Some of the host's choices (sage, flash) have no backward pass. Its wrapper round PyTorch's attention has one, but
    puts cuDNN first on some versions, whatever is switched off outside; hence PyTorch's function itself.

    Args:
        q, k, v: (batch, tokens, heads · width); with skip_reshape (batch, heads, tokens, width)
        mask: (tokens of q, tokens of k), (batch, …) or (batch, heads, …); added, or boolean: True takes part
        attn_precision: not used, as in the host's own PyTorch attention: the kernels sum in float32

    Returns:
        (batch, tokens, heads · width); with skip_output_reshape (batch, heads, tokens, width).
    """
    if not skip_reshape:
        width = q.shape[-1] // heads
        q, k, v = (rearrange(each, "b n (heads width) -> b heads n width", width=width) for each in (q, k, v))
    if mask is not None and mask.ndim == 3:
        mask = mask[:, None]  # (batch, 1, n of q, n of k)
    shared = {name: options[name] for name in ("scale", "enable_gqa") if name in options}
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **shared)
    return out if skip_output_reshape else rearrange(out, "b heads n width -> b n (heads width)")


@contextmanager
def no_cudnn_attention() -> Generator[None, None, None]:
    """Inside, PyTorch's attention does not run on cuDNN, whose backward pass gives NaN on some versions.

    Set for a whole training and not round each forward: a checkpointed block runs again in the backward pass. See
    huggingface/diffusers issue 9768 and pytorch/pytorch issue 196678.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
