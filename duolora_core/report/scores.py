"""How much pictures are like their references, by the embeddings of a vision model (Table 1 of arXiv 2504.13206)."""

from __future__ import annotations

import torch
from torch import Tensor


def similarity(embeddings: Tensor, references: Tensor) -> float:
    """The mean cosine of all pairs of a picture (n, d) and a reference (m, d): CLIP-I, DINO; with a text, CLIP-T."""
    return float((_directions(embeddings) @ _directions(references).T).mean())


def self_similarity(references: Tensor) -> float | None:
    """Mean cosine between different references (m, d): what a perfect picture can reach. None for a single one."""
    count = len(references)
    if count < 2:
        return None
    cosines = _directions(references) @ _directions(references).T  # (m, m)
    return float((cosines.sum() - cosines.trace()) / (count * (count - 1)))


def _directions(embeddings: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embeddings.to(torch.float64), dim=-1)
