"""Every adapter that is not a plain LoRA, as the exact change ΔW of one layer's weight.

    LoHa     ΔW = α/r · (A₁ B₁) ⊙ (A₂ B₂)                                     (LyCORIS, arXiv 2309.14859)
    LoKr     ΔW = α/r · W₁ ⊗ W₂, either factor itself a product                (LyCORIS, arXiv 2309.14859)
    OFT      ΔW = (R − I) W, R block-diagonal and orthogonal                   (arXiv 2306.07280)
    BOFT     ΔW = (R_m … R_1 − I) W, each R a butterfly of blocks              (arXiv 2311.06243)
    GLoRA    ΔW = α/r · (W A₁ A₂ + B₁ B₂)                                      (arXiv 2306.07967)
    (IA)³    ΔW = W · l, l on the outputs or on the inputs                     (arXiv 2205.05638)
    full     ΔW as it is, or the new weight minus W
    DoRA     ΔW = m ⊙ (W + Δ) / ‖…‖ − W, Δ any of the above or a plain LoRA    (arXiv 2402.09353)

A weight W is (out, in) or (out, in, kh, kw), and so is ΔW. `low_rank_of` makes of each the nearest LowRank; those that
are low-rank by themselves are never formed as out x in on the way. Every formula agrees with what ComfyUI's own loader
does with the same tensors, at strength 1.
"""

from __future__ import annotations

from .dora import Dora
from .glora import Glora
from .loha import Loha
from .lokr import Lokr
from .nearest import low_rank_of
from .on_device import CPU, Nearest, moved, nearest_on
from .orthogonal import Boft, Oft, cayley
from .parts import Adapter
from .plain import PlainLora
from .svd import randomised_svd
from .whole import FullDifference, Ia3

__all__ = [
    "CPU",
    "Adapter",
    "Boft",
    "Dora",
    "FullDifference",
    "Glora",
    "Ia3",
    "Loha",
    "Lokr",
    "Nearest",
    "Oft",
    "PlainLora",
    "cayley",
    "low_rank_of",
    "moved",
    "nearest_on",
    "randomised_svd",
]
