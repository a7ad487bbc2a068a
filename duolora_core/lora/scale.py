"""Where trainers leave a LoRA's scale when its layers carry no alpha: metadata in the file, or a config beside it.

    `.alpha` keys                  kohya, LyCORIS, OneTrainer: the layer's own, always first
    `lora_adapter_metadata`        diffusers since 0.33: {"unet.r": 16, "unet.lora_alpha": 8, "unet.use_rslora": …}
    `adapter_config.json`          PEFT: {"r": 16, "lora_alpha": 8, "alpha_pattern": {…}, "rank_pattern": {…}}
    `ss_network_alpha`             kohya's note of its settings: compared with the keys, never used alone

The scale is alpha / r, with rsLoRA (arXiv 2312.03732) alpha / √r. Nothing is guessed: what was taken, and that nothing
was found, is said in `LoraScales.notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from ..errors import LoraFileError
from ..files.sanitize import json_of, sanitize

CONFIG_NAME = "adapter_config.json"
_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
_PLAIN_NAME = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class LoraScales:
    """Attributes: `alphas`, {spelled layer: alpha} of the layers without one of their own; `notes`, for the artist."""

    alphas: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PeftConfig:
    """PEFT's LoraConfig, as far as it scales; the same settings for every layer but those that a pattern names.

    Attributes:
        any_rank: AdaLoRA's, which prunes each layer to a rank of its own
    """

    source: str
    rank: int
    alpha: float
    rank_stabilised: bool
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    any_rank: bool = False

    def alpha_of(self, layer: str, rank: int) -> float | None:
        """alpha such that alpha / rank is the scale; None where the layer's rank is not the config's."""
        expected = _matching(self.rank_pattern, layer)
        if not self.any_rank and rank != (self.rank if expected is None else expected):
            return None
        own = _matching(self.alpha_pattern, layer)
        alpha = self.alpha if own is None else own
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha


def lora_scales(
    metadata: Mapping[str, str],
    beside: Mapping[str, Any] | None,
    ranks: Mapping[str, int],
    own_alphas: Mapping[str, float],
    file: str,
) -> LoraScales:
    """The scales of all layers.

    Args:
        beside: the content of an `adapter_config.json` that belongs to the file
        ranks: {spelled layer: rank}
        own_alphas: {spelled layer: its alpha key}
        file: what messages call it

    Raises:
        LoraFileError: a config is there, but cannot be understood.
    """
    without = [layer for layer in ranks if layer not in own_alphas]
    notes = _cross_check(metadata, own_alphas)
    configs = _configs(metadata, beside, file)
    alphas: dict[str, float] = {}
    strangers: dict[str, list[str]] = {}
    for layer in without:
        config = configs.get(_component(layer)) or configs.get("")
        if config is None:
            continue
        alpha = config.alpha_of(layer, ranks[layer])
        if alpha is None:
            strangers.setdefault(config.source, []).append(layer)
        else:
            alphas[layer] = alpha
    for source in dict.fromkeys(config.source for config in configs.values()):
        if source in strangers:
            layers = strangers[source]
            notes.append(
                f"{source} speaks of another rank than {len(layers)} layers have (such as {layers[0]}, rank "
                f"{ranks[layers[0]]}): not used for these"
            )
        if alphas:
            notes.append(f"scale: of {len(alphas)} layers from {source}")
    unscaled = [layer for layer in without if layer not in alphas]
    if unscaled:
        which = (
            "nothing in or beside the file" if len(unscaled) == len(ranks) else f"nothing for {len(unscaled)} layers"
        )
        notes.append(f"scale: {which} says an alpha, so 1 was taken")
    return LoraScales(alphas, tuple(notes))


def _configs(metadata: Mapping[str, str], beside: Mapping[str, Any] | None, file: str) -> dict[str, PeftConfig]:
    """{component, or "" for all of them: config}; what is in the file goes before what lies beside it."""
    found: dict[str, PeftConfig] = {}
    if beside is not None and not metadata.get("lora_adapter_metadata"):
        config = _config(beside, "", CONFIG_NAME, file)
        if config is not None:
            found[""] = config
    raw = metadata.get("lora_adapter_metadata")
    if raw:
        source = "lora_adapter_metadata"
        try:
            held = json_of(raw)
        except ValueError as error:
            raise _unreadable(file, source, "it is not JSON") from error
        if not isinstance(held, Mapping):
            raise _unreadable(file, source, "it is no JSON object")
        for component in _COMPONENTS:
            config = _config(cast(Mapping[str, Any], held), f"{component}.", source, file)
            if config is not None:
                found[component] = config
    return found


def _config(held: Mapping[str, Any], prefix: str, source: str, file: str) -> PeftConfig | None:
    alpha = held.get(f"{prefix}lora_alpha", held.get(f"{prefix}alpha"))
    rank = held.get(f"{prefix}r")
    if alpha is None and rank is None:
        return None
    if not (_is_number(alpha) and _is_number(rank) and rank >= 1):
        raise _unreadable(file, source, f"r is {sanitize(str(rank), 40)} and lora_alpha {sanitize(str(alpha), 40)}")
    adaptive = held.get(f"{prefix}peft_type") == "ADALORA"  # its rank_pattern is a list of components, pruned already
    ranks = None if adaptive else held.get(f"{prefix}rank_pattern")
    return PeftConfig(
        source=source,
        rank=int(rank),
        alpha=float(alpha),
        rank_stabilised=held.get(f"{prefix}use_rslora") is True,
        rank_pattern=_pattern(ranks, "rank_pattern", source, file),
        alpha_pattern=_pattern(held.get(f"{prefix}alpha_pattern"), "alpha_pattern", source, file),
        any_rank=adaptive,
    )


def _pattern(held: Any, name: str, source: str, file: str) -> dict[str, float]:
    """PEFT reads the names as regular expressions; a stranger's expression is not run, plain names are compared."""
    if not held:
        return {}
    if not isinstance(held, Mapping) or not all(_is_number(value) for value in held.values()):
        raise _unreadable(file, source, f"its {name} is no object of numbers")
    for key in held:
        if not _PLAIN_NAME.fullmatch(str(key)):
            raise _unreadable(
                file, source, f"its {name} has the expression '{sanitize(str(key), 60)}' instead of a layer's name"
            )
    return {str(key): float(value) for key, value in cast(Mapping[str, Any], held).items()}


def _unreadable(file: str, source: str, why: str) -> LoraFileError:
    return LoraFileError(
        f"{file}: {source} gives this LoRA its scale, but cannot be understood: {why}. Save the LoRA again with the "
        "program that trained it, or convert it to kohya's format, which has an alpha for each layer."
    )


def _matching(pattern: Mapping[str, float], layer: str) -> float | None:
    return next((value for name, value in pattern.items() if layer == name or layer.endswith(f".{name}")), None)


def _component(layer: str) -> str:
    """Which part of a pipeline a spelled layer belongs to."""
    bare = layer.removeprefix("base_model.model.")
    return next((each for each in reversed(_COMPONENTS) if bare.startswith(f"{each}.")), "unet")


def _cross_check(metadata: Mapping[str, str], own_alphas: Mapping[str, float]) -> list[str]:
    """Where kohya's metadata contradicts the alpha keys."""
    said = metadata.get("ss_network_alpha", "")
    try:
        alpha = float(said)
    except ValueError:  # "Dynamic", "None", or nothing
        return []
    found = sorted(set(own_alphas.values()))
    if not found:
        return [f"ss_network_alpha says {alpha:g}, but no layer has an alpha: not used, as in ComfyUI"]
    if len(found) == 1 and not math.isclose(found[0], alpha, rel_tol=1e-2):
        return [f"ss_network_alpha says {alpha:g}, the layers' own alpha is {found[0]:g}: the layers' own was taken"]
    return []


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
