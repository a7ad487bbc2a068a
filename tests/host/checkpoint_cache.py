"""The tiny checkpoints on disk, one for each host, so that they are built once and not for every run of the tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock

from host.hosts import Host

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "host"


def tiny_checkpoint(host: Host) -> Path:
    """The cached checkpoint; built by the host's python when there is none or its builder changed."""
    builder = HERE / "tiny_checkpoint.py"
    made_from = builder.read_bytes() + (HERE / "fixtures_pack" / "unet.json").read_bytes()
    version = hashlib.sha256(made_from).hexdigest()[:8]
    name = f"{host.version}_vega"  # hosts may run side by side
    path = CACHE / f"{name}-{version}.safetensors"
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
    with FileLock(CACHE / f"{name}.lock"):
        if not path.exists():
            for stale in CACHE.glob(f"{name}-????????.*"):
                stale.unlink()
            host.run_script(builder, "--host", host.path, "--out", path)
    return path
