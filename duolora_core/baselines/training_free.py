"""Other people's training-free merges of a content and a style LoRA, for comparison: one pair in, one LoRA out.

    stack(pair)                        # ΔW_c + ΔW_s
    average(pair)                      # (ΔW_c + ΔW_s) / 2
    block_split(pair)                  # B-LoRA: each LoRA in its own block only
    null_space(pair)                   # NP-LoRA: the content LoRA gets out of the style LoRA's way

Each is rebuilt from its paper's formulas. All share what the papers leave open: text encoders and 1-D offsets are
summed at the strengths of the whole, and convolutions are treated as the flat matrices that LowRank holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import SettingsError
from ..lora.folded import FoldedLora
from ..lora.low_rank import LowRank
from ..lora.match import PlacedLora
from ..merge.gates import open_gates
from ..merge.merged import make_merged
from ..merge.roles import B_LORA_STYLE_BLOCK, Role, layer_roles
from ..merge.stack import LoraPair

B_LORA_CONTENT_BLOCK = "up_blocks.0.attentions.0"  # W4 of B-LoRA, arXiv 2403.14572


def with_layers(pair: LoraPair, content: Mapping[str, LowRank], style: Mapping[str, LowRank]) -> LoraPair:
    """The pair with other UNet layers; text encoders and offsets stay."""
    return replace(
        pair,
        contents=(replace(pair.content_lora, layers=content),),
        styles=(replace(pair.style_lora, layers=style),),
    )


def stack(pair: LoraPair, *, content_strength: float = 1.0, style_strength: float = 1.0) -> FoldedLora:
    """The plain weighted sum, ΔW = a ΔW_c + b ΔW_s, exact by concatenation of the ranks."""
    return make_merged(pair, open_gates(pair)).fold(content_strength, style_strength, dead_gate=0.0)


def average(pair: LoraPair) -> FoldedLora:
    """ΔW = (ΔW_c + ΔW_s) / 2."""
    return stack(pair, content_strength=0.5, style_strength=0.5)


def block_split(pair: LoraPair) -> FoldedLora:
    """B-LoRA's rule on LoRAs trained as usual: each only in its own block, all else of the UNet dropped.

    ΔW = ΔW_c in the paper's content block, ΔW_s in its style block, 0 elsewhere; offsets follow the same rule. B-LoRA
    itself (arXiv 2403.14572) also trains these blocks alone, which is not done here.

    Raises:
        SettingsError: the model has no such block, or a LoRA changes nothing in its block.
    """
    roles = layer_roles(pair.layout, f"{B_LORA_CONTENT_BLOCK}=content, {B_LORA_STYLE_BLOCK}=style")
    split = replace(
        pair,
        contents=(_only(pair.content_lora, "content", roles),),
        styles=(_only(pair.style_lora, "style", roles),),
    )
    for lora, block in ((split.content_lora, B_LORA_CONTENT_BLOCK), (split.style_lora, B_LORA_STYLE_BLOCK)):
        if not lora.layers:
            raise SettingsError(
                f"{lora.file.name} changes no layer in {block}, so the block split would leave nothing of it. "
                "Choose another method, or a LoRA that covers this block."
            )
    return stack(split)


def _only(lora: PlacedLora, role: Role, roles: Mapping[str, Role]) -> PlacedLora:
    return replace(
        lora,
        layers={name: low_rank for name, low_rank in lora.layers.items() if roles[name] == role},
        offsets={(name, what): value for (name, what), value in lora.offsets.items() if roles[name] == role},
    )


def null_space(pair: LoraPair, *, removed: float = 1 / 3) -> FoldedLora:
    """NP-LoRA (arXiv 2511.11051): the content LoRA's part in the style LoRA's input directions is removed, softly.

    ΔW = ΔW_s + ΔW_c (I - removed · V Vᵀ), exactly in low rank: down_c' = down_c - removed · (down_c V) Vᵀ, with
    V (inputs, k) the right-singular vectors of the style where it is not zero. The paper's weight μ is
    removed = μ / (1 + μ): its plain sum (μ = 0) is 0, its hard projection (μ = ∞) is 1, its default μ = 0.5 is our 1/3.

    Args:
        removed: the share of that part that is taken away

    Raises:
        SettingsError: `removed` is not in [0, 1].
    """
    if not 0 <= removed <= 1:
        raise SettingsError(f"removed is {removed}, but must lie between 0 (plain sum) and 1 (hard projection).")
    content = {
        name: _projected(low_rank, right_directions(pair.style[name]), removed) if name in pair.style else low_rank
        for name, low_rank in pair.content.items()
    }
    return stack(with_layers(pair, content, pair.style))


def right_directions(low_rank: LowRank) -> Tensor:
    """The right-singular vectors of ΔW, (inputs, k), without those whose singular value is rounding."""
    basis = low_rank.svd_basis()
    sigma = basis.up.square().sum(0)  # (m,), since up = U√Σ
    floor = torch.finfo(sigma.dtype).eps * max(basis.up.shape[0], basis.down.shape[1])
    alive = int((sigma > floor * sigma.max()).sum())  # sigma is in falling order
    return torch.linalg.qr(basis.down[:alive].T).Q


def _projected(low_rank: LowRank, directions: Tensor, removed: float) -> LowRank:
    return LowRank(low_rank.up, low_rank.down - removed * (low_rank.down @ directions) @ directions.T)
