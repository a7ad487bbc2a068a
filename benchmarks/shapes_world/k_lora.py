"""K-LoRA (arXiv 2502.18461), which chooses one of the two LoRAs for each layer anew as the denoising goes on.

So it ends in no LoRA file, and the pack's nodes do not offer it; rebuilt from its paper's formulas for the comparison.
"""

from __future__ import annotations

from torch import Tensor

from duolora_core import LoraPair
from duolora_core.baselines.training_free import stack, with_layers
from duolora_core.errors import SettingsError
from duolora_core.lora.folded import FoldedLora


def top_k_choice(pair: LoraPair, *, progress: float, alpha: float = 1.5, beta: float = 0.5) -> FoldedLora:
    """K-LoRA (arXiv 2502.18461) at one moment of the denoising: each layer is wholly content or wholly style.

    Content where S_c ≥ γ · (alpha · progress + beta) · S_s, else style. S is the sum of the k largest |ΔW| of the
    layer, k = r_c · r_s, and γ the mean over layers of ‖ΔW_c‖₁ / ‖ΔW_s‖₁, which balances the two files. (Equation 9 of
    the paper reads as the ratio of the totals; the mean of the ratios lets large layers count no more than small ones.)

    Args:
        progress: share of the denoising that is done, from 0 (noise) to 1 (picture)

    Raises:
        SettingsError: `progress` is not in [0, 1], or as `top_k_switch`.
    """
    if not 0 <= progress <= 1:
        raise SettingsError(f"progress is {progress}, but must lie between 0 (noise) and 1 (picture).")
    switches = top_k_switch(pair, alpha=alpha, beta=beta)
    content = {name for name, switch in switches.items() if switch is None or progress <= switch}
    return stack(
        with_layers(
            pair,
            {name: low_rank for name, low_rank in pair.content.items() if name in content},
            {name: low_rank for name, low_rank in pair.style.items() if name not in content},
        )
    )


def top_k_switch(pair: LoraPair, *, alpha: float = 1.5, beta: float = 0.5) -> dict[str, float | None]:
    """{layer: the progress up to which K-LoRA takes content, and after which style}.

    The rule is monotone in the progress, so this table is all that a sampler needs: (S_c / (γ S_s) - beta) / alpha.
    None means content to the end; a negative number means style from the start. A layer of only one LoRA keeps it.
    ΔW is formed densely, one layer at a time: the method is defined on its entries.

    Raises:
        SettingsError: `alpha` or `beta` is not positive.
    """
    if not (alpha > 0 and beta > 0):
        raise SettingsError(f"alpha is {alpha} and beta {beta}, but both must be positive.")
    sums: dict[str, tuple[float, float]] = {}
    balances: list[float] = []
    for name in pair.names:
        if name in pair.content and name in pair.style:
            k = pair.content[name].rank * pair.style[name].rank
            content, style = (side[name].delta().abs().flatten() for side in (pair.content, pair.style))
            sums[name] = _top_sum(content, k), _top_sum(style, k)
            if float(style.sum()) > 0:
                balances.append(float(content.sum() / style.sum()))
        else:
            sums[name] = (1.0, 0.0) if name in pair.content else (0.0, 1.0)
    balance = sum(balances) / len(balances) if balances else 1.0
    switches: dict[str, float | None] = {}
    for name, (content, style) in sums.items():
        switch = (content / (balance * style) - beta) / alpha if balance * style > 0 else 1.0
        switches[name] = switch if switch < 1 else None
    return switches


def _top_sum(values: Tensor, k: int) -> float:
    return float(values.topk(min(k, len(values))).values.sum())
