"""The tiny checkpoints on disk, one for each host, so that they are built once and not for every run of the tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from host.hosts import Host

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "host"


def tiny_checkpoint(host: Host, kind: str, *flags: str) -> Path:
    """The cached checkpoint of this kind; built by the host's python when there is none or its builder changed."""
    builder = HERE / "tiny_checkpoint.py"
    version = hashlib.sha256(builder.read_bytes()).hexdigest()[:8]
    name = "_".join((host.version, kind, *(flag.strip("-") for flag in flags)))  # hosts may run side by side
    path = CACHE / f"{name}-{version}.safetensors"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
        for stale in CACHE.glob(f"{name}-????????.*"):
            stale.unlink()
        host.run_script(builder, "--host", host.path, "--out", path, "--kind", kind, *flags)
    return path
