"""Which errors mean that memory ran out: texts of PyTorch's backends and libraries, and what only looks like them."""

from __future__ import annotations

import pytest
import torch

from duolora_core.model.memory.estimate import MemoryPlan
from duolora_core.model.memory.out_of_memory import is_out_of_memory
from duolora_core.model.memory.planner import MemoryPlanner

FULL = {
    "CUDA allocator": "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 11.99 GiB",
    "CUDA runtime": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA driver": "CUDA driver error: out of memory",
    "cuBLAS handle": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN 8": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN workspace": "GET was unable to find an engine to execute this computation",
    "cuDNN benchmark": "FIND was unable to find an engine to execute this computation",
    "cuSOLVER": "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "HIP allocator": "HIP out of memory. Tried to allocate 256.00 MiB (GPU 0; 15.98 GiB total capacity)",
    "HIP runtime": "HIP error: out of memory",
    "hipBLAS": "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "rocBLAS": "rocblas_status_memory_error when calling rocblas_create_handle",
    "XPU allocator": "XPU out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 15.56 GiB.",
    "XPU driver": "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "XPU older driver": "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)",
    "DirectML": "Could not allocate tensor with 1073741824 bytes. There is not enough GPU video memory available!",
    "MPS": "MPS backend out of memory (MPS allocated: 17.91 GB, other allocations: 64.00 KB, max allowed: 18.13 GB).",
    "MPS buffer": "Invalid buffer size: 24.41 GiB",
    "main memory": "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    " to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)",
    "main memory, Windows": "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you "
    "tried to allocate 9437184 bytes.",
    "main memory, C++": "std::bad_alloc",
}

OTHERS = {
    "shapes": "mat1 and mat2 shapes cannot be multiplied (77x2048 and 1280x640)",
    "dtypes": "mat1 and mat2 must have the same dtype, but got BFloat16 and Half",
    "wild pointer": "CUDA error: an illegal memory access was encountered",
    "assert": "CUDA error: device-side assert triggered",
    "cuBLAS arguments": "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(...)`",
    "cuBLAS failure": "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "cuDNN layout": "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a "
    "non-contiguous input.",
    "cuDNN failure": "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "layout": "required rank 4 tensor to use channels_last memory format",
    "shared memory of a kernel": "out of resource: shared memory, Required: 114688, Hardware limit: 101376.",
    "bounds": "index 77 is out of bounds for dimension 0 with size 77",
    "inference": "Inference tensors cannot be saved for backward.",
    "XPU loss": "level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
    "disk": "[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0: No space left on device",
}


@pytest.mark.parametrize("text", FULL.values(), ids=FULL.keys())
def test_every_name_of_a_full_memory_is_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_other_failures_are_not_taken_for_it(text: str) -> None:
    assert not is_out_of_memory(RuntimeError(text))


def test_classes_of_their_own_need_no_text() -> None:
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("full"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(FileNotFoundError("loras/out of memory.safetensors"))
    assert not is_out_of_memory(KeyError("CUDNN_STATUS_ALLOC_FAILED"))


def test_a_step_that_a_library_has_no_memory_for_is_repeated_under_the_smaller_plan() -> None:
    """Also where no host says what counts as that."""

    def step(plan: MemoryPlan) -> int:
        if plan.micro_batch > 1:
            raise RuntimeError(FULL["cuBLAS handle"])
        return plan.micro_batch

    assert MemoryPlanner([MemoryPlan(2, "none"), MemoryPlan(1, "none")]).run_with_oom_retry(step) == 1
