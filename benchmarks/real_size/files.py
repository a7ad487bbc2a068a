"""The random checkpoint and LoRAs on disk, built once and not for every run."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from filelock import FileLock

from host.hosts import Host

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "full"
ON_DISK = 10.0
"""GB that must be free to build them: checkpoint and LoRAs have 7.7, the saved merge 0.7."""


def sdxl_files(host: Host, model: str) -> Path:
    """The folder of `checkpoint`, `content` and `style` (.safetensors); the host's python builds what is missing.

    Raises:
        OSError: the disk has too little room for them.
    """
    builder = HERE / "sdxl_files.py"
    version = hashlib.sha256(builder.read_bytes()).hexdigest()[:8]
    folder = CACHE / f"{model}-{version}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{model}.lock"):
        if not folder.exists():
            for stale in CACHE.glob(f"{model}-*"):
                shutil.rmtree(stale)
            free = shutil.disk_usage(CACHE).free / 1e9
            if free < ON_DISK:
                raise OSError(f"{CACHE} has {free:.1f} GB free; the checkpoint and its LoRAs need {ON_DISK:.0f} GB")
            partial = CACHE / f"{model}-partial"  # a half-built folder is never taken for a whole one
            partial.mkdir()
            host.run_script(builder, "--host", host.path, "--out", partial, "--model", model, timeout=3600)
            partial.rename(folder)
    return folder
