"""What attention takes where no fused kernel computes it: PyTorch's plain path holds all scores of a sample at once.

Per sample, with N tokens in h heads of d channels, C = h d, M text tokens; s is the bytes of a number inside attention:

    saved       self-attention 3 C N + h N², cross-attention C N + 2 C M + h N M (scaled queries and keys, values and
                softmax), each times s, in place of queries, keys, values and outputs
    backward    of self-attention: what it saved, the gradients of scores and softmax, 2 h N² s, and its output's
    forward     of self-attention: scores and softmax, 2 h N² s, and what they are made of

Source: `_scaled_dot_product_attention_math` in PyTorch's `aten/src/ATen/native/transformers/attention.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """How a device without a fused kernel computes attention.

    Attributes:
        head_channels: of one head
        element_size: bytes per number inside attention: half precision is computed in float32 there, unless PyTorch
            was told that it may stay
    """

    head_channels: int
    element_size: int


@dataclass(frozen=True)
class AttentionBlock:
    """A transformer block as its attention sees it, with the bytes of one sample.

    Attributes:
        channels, tokens, text_tokens: C, N and M
        element_size: bytes per number outside of attention
        adapters: bytes that the LoRAs of the self-attention keep
        text_is_trained: a gradient goes to the keys of the text, so that its queries are saved
    """

    channels: int
    tokens: int
    text_tokens: int
    element_size: int
    adapters: int
    text_is_trained: bool

    def saved(self, scores: Scores) -> int:
        """What its backward needs beyond what it would with a fused kernel; less than 0 for few tokens."""
        return self._self_saved(scores) + self._cross_saved(scores) - self._fused

    def backward(self, scores: Scores) -> int:
        """Alive in the backward of the self-attention, when that of all that follows has been done."""
        c = self.element_size * self.channels * self.tokens
        return 2 * c + self.adapters + self._self_saved(scores) + 2 * self._matrix(scores)

    def forward(self, scores: Scores) -> int:
        """Alive in the forward of the self-attention when nothing is saved."""
        numbers = self.channels * self.tokens
        copies = 4 if scores.element_size > self.element_size else 1
        return 5 * self.element_size * numbers + copies * scores.element_size * numbers + 2 * self._matrix(scores)

    def _matrix(self, scores: Scores) -> int:
        """All scores of the self-attention once."""
        heads = self.channels // scores.head_channels
        return scores.element_size * heads * self.tokens**2

    def _self_saved(self, scores: Scores) -> int:
        return 3 * scores.element_size * self.channels * self.tokens + self._matrix(scores)

    def _cross_saved(self, scores: Scores) -> int:
        heads = self.channels // scores.head_channels
        queries = self.channels * self.tokens * self.text_is_trained
        text = 2 * self.channels * self.text_tokens
        return scores.element_size * (queries + text + heads * self.tokens * self.text_tokens)

    @property
    def _fused(self) -> int:
        """Queries, keys, values and outputs of both attentions."""
        return self.element_size * self.channels * (6 * self.tokens + 2 * self.text_tokens)
