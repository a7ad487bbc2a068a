"""The parts of one layer, as its keys name them, put together: which adapter they are, and whether they fit.

    parts = {"up": ("….lora_up.weight", tensor), "down": …, "alpha": …}
    adapter_of(layer, parts, "dog.safetensors")        # PlainLora

What a trainer writes beside the factors (DoRA's magnitude, a bias, AdaLoRA's importances) is used or refused, never
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import LoraFileError
from .adapters import Adapter, Boft, Dora, FullDifference, Glora, Ia3, Loha, Lokr, Oft, PlainLora

Parts = Mapping[str, tuple[str, Tensor]]
"""{part, as `keys.split_key` names it: (key in the file, tensor)}"""

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_GLORA = ("glora_a1", "glora_a2", "glora_b1", "glora_b2")
_LOKR_FACTORS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_KINDS = {
    "a LoRA": {"up", "down", "mid", "importance", "rank_count", "up_bias"},
    "a LoHa": {*_LOHA, "hada_t1", "hada_t2"},
    "a LoKr": {*_LOKR_FACTORS, "lokr_t2"},
    "an OFT": {"oft_blocks", "rescale"},
    "a GLoRA": set(_GLORA),
    "an (IA)³": {"ia3_scales", "on_input", "ia3_weight"},
    "a new weight": {"new_weight"},
}


def adapter_of(layer: str, parts: Parts, file: str, alpha: float | None = None) -> Adapter | None:
    """The adapter that a layer's parts make; None where none of them is a change of its weight matrix.

    Args:
        layer: as spelled in the file
        file: what messages call it
        alpha: the layer's own, or that of the file's metadata; None: the scale is 1

    Raises:
        LoraFileError: a part is missing, broken, or does not fit the others.
    """
    _require_one_kind(layer, parts, file)
    change = _change(layer, parts, file, alpha)
    if change is None:
        return None
    for part, of_base in (("dora_scale", True), ("magnitude", False)):
        if part in parts:
            return Dora(change, finite(*parts[part], file), of_base)
    return change


OFFSETS = ("weight_offset", "bias_offset", "up_bias", "new_weight")
"""Parts that may change a layer without an adapter of its weight matrix."""


def offsets_of(layer: str, parts: Parts, adapter: Adapter | None, file: str) -> dict[str, Tensor]:
    """{"weight" | "bias": (channels,)}, the 1-D changes of a layer.

    Raises:
        LoraFileError: a part is broken, or replaces a 1-D weight, whose old values are not known here.
    """
    found: dict[str, Tensor] = {}
    if "weight_offset" in parts and parts["weight_offset"][1].ndim < 2:
        found["weight"] = finite(*parts["weight_offset"], file)
    if "bias_offset" in parts:
        found["bias"] = finite(*parts["bias_offset"], file)
    if "up_bias" in parts:  # PEFT's lora_bias: scale · (up (down x) + bias)
        change = adapter.change if isinstance(adapter, Dora) else adapter
        scale = change.scale if isinstance(change, PlainLora) else 1.0
        bias = finite(*parts["up_bias"], file).to(torch.float32) * scale
        found["bias"] = found["bias"].to(bias) + bias if "bias" in found else bias
    if "new_weight" in parts and parts["new_weight"][1].ndim < 2:
        raise LoraFileError(
            f"{file}: {parts['new_weight'][0]} replaces the weight of a norm instead of changing it. DuoLoRA adds "
            "changes; extract a LoRA from the model that it makes."
        )
    return found


def _require_one_kind(layer: str, parts: Parts, file: str) -> None:
    kinds = [kind for kind, own in _KINDS.items() if own & parts.keys()]
    if "weight_offset" in parts and parts["weight_offset"][1].ndim > 1:
        kinds.append("a full difference")
    magnitudes = [part for part in ("dora_scale", "magnitude") if part in parts]
    if len(kinds) > 1 or len(magnitudes) > 1:
        raise LoraFileError(
            f"{file}: layer {layer} holds {' and '.join(kinds if len(kinds) > 1 else magnitudes)} at once, of which "
            "every program uses another one. Save the LoRA again with the program that trained it."
        )


def _change(layer: str, parts: Parts, file: str, alpha: float | None) -> Adapter | None:
    if "up" in parts or "down" in parts:
        return _plain(layer, parts, file, alpha)
    if any(part in parts for part in _LOHA):
        return _loha(layer, parts, file, alpha)
    if any(part in parts for part in _LOKR_FACTORS):
        return _lokr(layer, parts, file, alpha)
    if "oft_blocks" in parts:
        return _oft(layer, parts, file, alpha)
    if any(part in parts for part in _GLORA):
        _require(layer, parts, _GLORA, file)
        a1, a2, b1, b2 = (finite(*parts[part], file) for part in _GLORA)
        return Glora(a1, a2, b1, b2, alpha)
    if "ia3_scales" in parts:
        scales = finite(*parts["ia3_scales"], file).to(torch.float32) - 1
        if scales.ndim > 2:
            raise LoraFileError(
                f"{file}: layer {layer} is an (IA)³ of a convolution, whose shape {tuple(scales.shape)} does not say "
                "whether it scales inputs or outputs. Extract a plain LoRA from the model that it makes."
            )
        on_input = scales.shape[0] == 1
        return Ia3(scales, on_input, of_bias=not on_input)  # PEFT scales what the layer gives
    if "on_input" in parts:
        _require(layer, parts, ("ia3_weight",), file)
        return Ia3(finite(*parts["ia3_weight"], file), on_input=bool(parts["on_input"][1]))
    if "weight_offset" in parts and parts["weight_offset"][1].ndim > 1:
        return FullDifference(finite(*parts["weight_offset"], file))
    if "new_weight" in parts and parts["new_weight"][1].ndim > 1:
        return FullDifference(finite(*parts["new_weight"], file), replaces=True)
    return None


def _plain(layer: str, parts: Parts, file: str, alpha: float | None) -> PlainLora:
    if not ("up" in parts and "down" in parts):
        have, lack = ("up", "down") if "up" in parts else ("down", "up")
        raise LoraFileError(
            f"{file}: layer {layer} has its {have} weight ({parts[have][0]}) but no {lack} weight. "
            "The file is incomplete; download it again or ask its author."
        )
    up, down = finite(*parts["up"], file), finite(*parts["down"], file)
    if "importance" in parts:  # AdaLoRA: ΔW = alpha / ranks · B (E ⊙ A), arXiv 2303.10512
        importance = finite(*parts["importance"], file)
        if importance.numel() != down.shape[0]:
            raise _misfit(layer, parts, ("up", "down", "importance"), file)
        down = down.to(torch.float32) * importance.to(torch.float32).reshape(-1, *[1] * (down.ndim - 1))
    mid = finite(*parts["mid"], file) if "mid" in parts else None
    fits = up.ndim in (2, 4) and down.ndim in (2, 4)
    if mid is None:
        fits = fits and up.shape[1] == down.shape[0]
    else:
        fits = (
            fits and mid.ndim == 4 and (up.shape[1], down.shape[0]) == mid.shape[:2] and down.shape[2:] in ((), (1, 1))
        )
    empty = any(0 in tensor.shape for tensor in (up, down, mid) if tensor is not None)
    if not fits or empty or (up.ndim == 4 and up.shape[2:] != (1, 1)):
        raise _misfit(layer, parts, ("up", "down", "mid"), file)
    return PlainLora(up, down, mid, alpha)


def _loha(layer: str, parts: Parts, file: str, alpha: float | None) -> Loha:
    _require(layer, parts, _LOHA, file)
    w1_a, w1_b, w2_a, w2_b = (finite(*parts[part], file) for part in _LOHA)
    cores = [finite(*parts[part], file) if part in parts else None for part in ("hada_t1", "hada_t2")]
    t1, t2 = cores
    if (t1 is None) != (t2 is None):
        _require(layer, parts, ("hada_t1", "hada_t2"), file)
    fits = all(t.ndim == 2 and 0 not in t.shape for t in (w1_a, w1_b, w2_a, w2_b))
    if t1 is None or t2 is None:
        fits = fits and w1_a.shape[1] == w1_b.shape[0] and w2_a.shape[1] == w2_b.shape[0]
        fits = fits and (w1_a.shape[0], w1_b.shape[1]) == (w2_a.shape[0], w2_b.shape[1])
    else:
        fits = fits and all(
            t.ndim == 4 and t.shape[:2] == (a.shape[0], b.shape[0]) for t, a, b in ((t1, w1_a, w1_b), (t2, w2_a, w2_b))
        )
        fits = fits and (w1_a.shape[1], w1_b.shape[1], *t1.shape[2:]) == (w2_a.shape[1], w2_b.shape[1], *t2.shape[2:])
    if not fits:
        raise _misfit(layer, parts, (*_LOHA, "hada_t1", "hada_t2"), file)
    return Loha(w1_a, w1_b, w2_a, w2_b, t1, t2, alpha)


def _lokr(layer: str, parts: Parts, file: str, alpha: float | None) -> Lokr:
    for w in ("lokr_w1", "lokr_w2"):
        if w not in parts:
            _require(layer, parts, (f"{w}_a", f"{w}_b"), file)
    held = {part: finite(*parts[part], file) if part in parts else None for part in (*_LOKR_FACTORS, "lokr_t2")}
    w1, w1_a, w1_b, w2, w2_a, w2_b, t2 = held.values()
    fits = all(t is None or (t.ndim >= 2 and 0 not in t.shape) for t in held.values())
    fits = fits and (w1 is None or w1.ndim == 2) and (w2 is None or w2.ndim in (2, 4))
    twice = (w1 is not None and (w1_a is not None or w1_b is not None)) or (
        w2 is not None and (w2_a is not None or w2_b is not None or t2 is not None)
    )
    fits = fits and not twice
    for whole, a, b, core in ((w1, w1_a, w1_b, None), (w2, w2_a, w2_b, t2)):
        if whole is not None or a is None or b is None:
            continue
        between = core.shape[:2] if core is not None and core.ndim == 4 else None
        product = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]
        fits = fits and (product if core is None else (a.shape[0], b.shape[0]) == between)
    if not fits:
        raise _misfit(layer, parts, (*_LOKR_FACTORS, "lokr_t2"), file)
    return Lokr(w1, w1_a, w1_b, w2, w2_a, w2_b, t2, alpha)


def _oft(layer: str, parts: Parts, file: str, alpha: float | None) -> Oft | Boft:
    blocks = finite(*parts["oft_blocks"], file)
    square = blocks.ndim in (3, 4) and blocks.shape[-1] == blocks.shape[-2] and 0 not in blocks.shape
    if not square:
        raise _misfit(layer, parts, ("oft_blocks",), file)
    rescale = finite(*parts["rescale"], file) if "rescale" in parts else None
    if blocks.ndim == 4:
        return Boft(blocks, alpha or 0.0, rescale)
    if rescale is not None and not bool((rescale == 1).all()):
        raise LoraFileError(
            f"{file}: layer {layer} is an OFT with a trained rescale, which ComfyUI's loader leaves out, so that no "
            "two programs agree on it. Save it again without rescaled, or extract a LoRA from the model that it makes."
        )
    return Oft(blocks, alpha or 0.0)


def alpha_of(parts: Parts, file: str) -> float:
    """The number in a layer's alpha key.

    Raises:
        LoraFileError: it is not one finite number.
    """
    key, tensor = parts["alpha"]
    if tensor.numel() != 1:
        raise LoraFileError(f"{file}: {key} should be one number but has shape {tuple(tensor.shape)}.")
    return float(finite(key, tensor.to(torch.float32), file))


def _require(layer: str, parts: Parts, needed: tuple[str, ...], file: str) -> None:
    missing = [part for part in needed if part not in parts]
    if missing:
        there = ", ".join(key for key, _ in parts.values())
        raise LoraFileError(
            f"{file}: layer {layer} has {there} but no {' and no '.join(missing)}. The file is incomplete; download it "
            "again or ask its author."
        )


def _misfit(layer: str, parts: Parts, named: tuple[str, ...], file: str) -> LoraFileError:
    shapes = ", ".join(f"{part} {tuple(parts[part][1].shape)}" for part in named if part in parts)
    return LoraFileError(f"{file}: the weights of layer {layer} do not fit each other ({shapes}). The file is damaged.")


def finite(key: str, tensor: Tensor, file: str) -> Tensor:
    """The tensor itself.

    Raises:
        LoraFileError: it holds no floating-point numbers, or one that is not finite.
    """
    if not tensor.is_floating_point():
        raise LoraFileError(
            f"{file}: {key} holds {str(tensor.dtype).removeprefix('torch.')} numbers, which are no weights without the "
            "scale of their quantisation. Use the LoRA in fp16, bf16 or fp32."
        )
    if not all_finite(tensor):
        raise LoraFileError(f"{file}: {key} contains NaN or infinity. The LoRA is broken; use an earlier save of it.")
    return tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite in float32, by one sum: several times faster than a mask of all entries."""
    return bool(tensor.to(torch.float32).sum(dtype=torch.float64).isfinite())  # finite float32 cannot overflow it
