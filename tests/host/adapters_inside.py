"""Runs inside a host's python: what core's own loader makes of LoRA files, beside what our engine makes of them.

python adapters_inside.py --host PATH --pack PATH --manifest PATH

The manifest is [{"path": LoRA file, "weights": safetensors file of the checkpoint's weights by our names, "family": one
of `inside_host.DEPTHS`}]; printed is {path: {"worst": relative error, "compared": layers, "differ": layers that only
one of both changes}}.
"""

from __future__ import annotations

import importlib
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import inside_host  # beside this file, which is a script


def main() -> None:
    wanted = inside_host.entered("pack", "manifest")
    inside_host.load_pack(wanted.pack)
    models: dict[str, Model] = {}
    found: dict[str, Any] = {}
    for row in json.loads(wanted.manifest.read_text(encoding="utf-8")):
        if row["family"] not in models:
            models[row["family"]] = Model(row["family"], row["weights"])
        found[row["path"]] = models[row["family"]].compared(Path(row["path"]))
    inside_host.tell(found)


class Model:
    """A model whose names core knows, with weights for those layers that files change."""

    def __init__(self, family: str, weights: str):
        import comfy.lora
        import comfy.ops
        import comfy.utils

        core: Any = importlib.import_module("duolora_pack.duolora_core")
        network = inside_host.unet(family, comfy.ops.disable_weight_init)
        shapes = {
            name: tuple(module.weight.shape)
            for name, module in network.named_modules()
            if getattr(module, "weight", None) is not None
        }
        self.layout = core.layout_from_shapes(shapes)
        self.weights: Mapping[str, Any] = comfy.utils.load_torch_file(weights)
        unet = types.SimpleNamespace(
            state_dict=lambda: {f"diffusion_model.{name}": each for name, each in network.state_dict().items()},
            model_config=types.SimpleNamespace(unet_config=inside_host.config_of(family)),
        )
        self.names = {f"diffusion_model.{name}": name for name in shapes}
        self.names |= {_in_core(name): name for name in self.weights if name not in shapes}
        clip = types.SimpleNamespace(
            state_dict=lambda: {f"{key}.weight": None for key in self.names if key.startswith("clip_")}
        )
        self.known = comfy.lora.model_lora_keys_unet(unet, {})
        self.known = comfy.lora.model_lora_keys_clip(clip, self.known)

    def compared(self, path: Path) -> dict[str, Any]:
        ours, cores = self._ours(path), self._cores(path)
        both = ours.keys() & cores.keys()
        errors = [float((ours[key] - cores[key]).norm() / cores[key].norm().clamp(min=1e-30)) for key in both]
        return {
            "worst": max(errors, default=1.0),
            "compared": len(both),
            "differ": sorted(map(str, ours.keys() ^ cores.keys())),
        }

    def _ours(self, path: Path) -> dict[tuple[str, str], Any]:
        core: Any = importlib.import_module("duolora_pack.duolora_core")
        keys: Any = importlib.import_module("duolora_pack.duolora_core.lora.keys")
        file = core.read_lora(path)
        found: dict[tuple[str, str], Any] = {}
        for spelled, adapter in file.entries.items():
            name = keys.unet_layer(spelled, self.layout) or keys.text_layer(spelled)
            weight = self.weights[name].float()
            found[name, "weight"] = adapter.delta(weight.shape, weight).double()
        placed = core.match_to_model(file, self.layout, weight=self._weight, rank_limit=1)
        offsets = {**placed.offsets, **placed.text_offsets}
        return found | {key: offset.double() for key, offset in offsets.items()}

    def _weight(self, name: str) -> Any:
        return self.weights.get(name)

    def _cores(self, path: Path) -> dict[tuple[str, str], Any]:
        import comfy.lora
        import comfy.lora_convert
        import comfy.utils
        import torch

        state = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
        found: dict[tuple[str, str], Any] = {}
        for key, patch in comfy.lora.load_lora(state, self.known, log_missing=False).items():
            layer, _, what = key.rpartition(".")
            name = self.names[layer]
            weight = self.weights.get(name)
            if what == "bias" or weight is None:
                weight = torch.zeros(patch[1][0].shape)
            changed = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.float().clone(), key)
            found[name, what] = changed.double() - weight.double()
        return found


def _in_core(name: str) -> str:
    """Core's name of a text-encoder layer."""
    if name.startswith("text_encoders."):
        return name.removeprefix("text_encoders.")
    bare = name.removeprefix("lora_")
    encoder, _, layer = bare.partition("_")
    for joined in ("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "layer_norm1", "fc1", "fc2"):
        layer = layer.replace(joined, joined.replace("_", "~"))
    return f"{'clip_l' if encoder == 'te1' else 'clip_g'}.transformer.{layer.replace('_', '.').replace('~', '_')}"


if __name__ == "__main__":
    main()
