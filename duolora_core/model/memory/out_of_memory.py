"""The names under which devices and their libraries report that memory ran out."""

from __future__ import annotations

import re

import torch

_NAMES = re.compile(
    "|".join(
        (
            r"out of memory\b",  # CUDA, HIP, XPU and MPS, of allocators, drivers and runtimes
            r"not enough memory: you tried to allocate",  # main memory, Windows
            r"can't allocate memory|cannot allocate memory",  # main memory, Linux and macOS
            r"not enough GPU video memory",  # DirectML
            r"Invalid buffer size: [\d.]+ [GMK]i?B",  # MPS: one tensor larger than any buffer may be
            r"STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER, hipBLAS
            r"rocblas_status_memory_error|miopenStatusAllocFailed",
            r"STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED",  # cuDNN 9
            r"unable to find an engine to execute",  # cuDNN: no convolution's workspace fits
            r"ERROR_OUT_OF_(DEVICE_MEMORY|HOST_MEMORY|RESOURCES)",  # XPU: Level Zero, SYCL, OpenCL
            r"std::bad_alloc|\bbad allocation\b",  # main memory, the C++ library
        )
    ),
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that a device, or main memory, is full.

    PyTorch has a class of its own only for what its caching allocators find out themselves. What a driver or a library
    finds out (a handle, a workspace), and all of MPS and DirectML, is a RuntimeError and known by its text.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NAMES.search(str(error)))
