"""Main memory that is free again, given back to the system.

Tensors below 32 MB, nearly all of an SDXL LoRA's and of SDXL's layers, lie in the heaps of the C library, which keeps
what is freed there for later. After pictures were painted and masks trained that is several GB between blocks that are
in use, while the next node asks for more.
"""

from __future__ import annotations

import ctypes
import sys


def give_back_freed() -> None:
    """Returns the free pages of all heaps, where the C library is glibc, which has to be asked to."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
