"""The arithmetic of a training: the model's own dtype and nothing else."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

COMPUTE_DTYPES = {"as loaded": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@contextmanager
def own_precision(device: torch.device, element_size: int) -> Generator[None, None, None]:
    """Inside, nothing that is set for sampling changes how the model computes; restored after.

    - No autocast.
    - float32 products may use TF32, which rounds factors to fp16's precision and keeps float32's range: enough for
      masks, which train in fp16 as well, and much faster on the cards that have it.
    - float16 products are not summed in float16, as `--fast fp16_accumulation` has it: a gradient sums over thousands
      of tokens, and such a sum overflows at 65,504 and loses what is 2,048 times smaller. PyTorch before 2.7 never
      does, and has no switch for it.
    """
    matmul: Any = torch.backends.cuda.matmul
    wanted = {"allow_tf32": matmul.allow_tf32 or element_size == 4, "allow_fp16_accumulation": False}
    before = {name: getattr(matmul, name) for name in wanted if hasattr(matmul, name)}
    with _no_autocast(device.type):
        try:
            for name in before:
                setattr(matmul, name, wanted[name])
            yield
        finally:
            for name, value in before.items():
                setattr(matmul, name, value)


def _no_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Autocast switched off, or nothing where the device has none.

    Asked by trying: `torch.amp.is_autocast_available` is missing before PyTorch 2.4, and says yes for DirectML, for
    which making an autocast then fails on an assertion.
    """
    try:
        return torch.autocast(device_type, enabled=False)
    except (RuntimeError, AssertionError):
        return nullcontext()
