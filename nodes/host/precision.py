"""The arithmetic of a training: the model's own dtype and nothing else."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def own_precision(device: torch.device, element_size: int) -> Generator[None, None, None]:
    """Inside, no autocast changes what the model computes in, and float32 products may use TF32; restored after.

    TF32 rounds factors to fp16's precision and keeps float32's range: enough for masks, which train in fp16 as well,
    and much faster on the cards that have it.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    known = torch.amp.is_autocast_available(device.type)
    with torch.autocast(device.type, enabled=False) if known else nullcontext():
        try:
            matmul.allow_tf32 = before or element_size == 4
            yield
        finally:
            matmul.allow_tf32 = before
