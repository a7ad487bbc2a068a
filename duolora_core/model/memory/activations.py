"""What one sample leaves in memory on its way through an SDXL-family UNet, piece by piece, from the layer table.

A backward needs what the forward saved. Per position (pixel or token) of a layer's level, with C the channels and R the
elements that the layer's LoRAs keep for the gates' gradient, this is in elements:

    transformer block   21 C + R: the inputs of three norms 3 C, queries, keys, values and outputs of two attentions
                        6 C (the second one's keys and values, 2 C, belong to the text tokens), the gated GELU 12 C
    residual block      3 C_in + 3 C_out + R: the inputs of two norms, two activations and two convolutions
    around transformers C + R: the input of the norm
    resampling, stem    C_in + R: the input of the convolution
    output              3 C + R: the inputs of norm, activation and convolution

Frozen weights have no gradient, so a linear layer saves none of its inputs. Attention is linear in the number of
tokens, as flash and memory-efficient kernels are; `attention` has what it takes where a device has none of them.
`python -m benchmarks.speed.memory_plan` compares with the bytes that are alive in a real step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..layout import Layer, UNetLayout
from .attention import AttentionBlock, Scores

_BLOCK = re.compile(
    r".+\.transformer_blocks\.\d+(?=\.)|.+\.\d+(?=\.(?:in_layers|emb_layers|out_layers|skip_connection))"
)
_FROM_TEXT = re.compile(r"\.attn2\.to_[kv]$")
_FROM_TIME = re.compile(r"\.emb_layers\.|^time_embed\.|^label_emb\.")


@dataclass(frozen=True)
class Piece:
    """One piece of the UNet, in bytes of one sample unless said otherwise.

    Attributes:
        saved: what its backward needs; 0 before the first LoRA, because no gradient passes there
        input: the part of `saved` that it was given; all that checkpointing keeps of a block
        backward: alive in its backward beside `saved`
        forward: alive in its forward when nothing is saved, the waiting skip connections included
        largest: elements of the largest weight through which a gradient passes
        level: of a transformer or residual block, which checkpointing can run a second time: how often the resolution
            is halved there; None for all other pieces
    """

    saved: int
    input: int
    backward: int
    forward: int
    largest: int
    level: int | None


def block_levels(layout: UNetLayout) -> dict[str, int]:
    """{module name: level} of every transformer and residual block: what checkpointing can run a second time."""
    matches = ((_BLOCK.match(name), layer) for name, layer in layout.layers.items())
    return {match[0]: layer.block.level for match, layer in matches if match}


def pieces(
    layout: UNetLayout,
    kept: Mapping[str, int],
    latent: tuple[int, int],
    element_size: int,
    text_tokens: int = 77,
    casts: bool = False,
    scores: Scores | None = None,
) -> list[Piece]:
    """All pieces of a forward, in its order.

    Args:
        kept: {layer: elements per position that its LoRAs keep for the gates' gradient}, R above
        latent: (h, w)
        element_size: bytes per number
        text_tokens: of one prompt
        casts: weights are stored in another dtype, so that a convolution without a LoRA keeps no input
        scores: of attention without a fused kernel
    """
    levels = block_levels(layout)
    found: list[Piece] = []
    skips: list[int] = []  # elements of the down path's outputs, one per stage
    entered, stage, gradient_passes = 0, "", False
    for name, layers in _groups(layout).items():
        gradient_passes = gradient_passes or any(layer.name in kept for layer in layers)
        needs = _needs(name, layers, kept, latent, text_tokens)
        if name.startswith("output_blocks.") and name.split(".")[1] != stage:
            stage = name.split(".")[1]
            skips.pop()
            entered = needs.input  # previous output and skip connection in one tensor, alive while the stage runs
        elif name.startswith("input_blocks"):
            number = name.split(".")[1] if "." in name else "0"
            skips[int(number) :] = [needs.output]
        waiting = (entered + sum(skips)) * element_size
        carrying = (math.prod(each.shape) for each in layers if _carries_gradient(each))
        piece = Piece(
            saved=(needs.saved - needs.convolved * casts) * element_size * gradient_passes,
            input=needs.input * element_size * gradient_passes,
            backward=needs.backward * element_size * gradient_passes,
            forward=needs.forward * element_size + waiting,
            largest=max(carrying, default=0) * gradient_passes,
            level=levels.get(name),
        )
        if scores and ".transformer_blocks." in name:
            block = _attention_block(name, layers, kept, needs.input, text_tokens, element_size)
            piece = _with_scores(piece, block, scores, waiting)
        found.append(piece)
    return found


def _attention_block(
    name: str, layers: Sequence[Layer], kept: Mapping[str, int], numbers: int, text_tokens: int, element_size: int
) -> AttentionBlock:
    """A transformer block whose input has so many `numbers`."""
    (channels,) = (layer.shape[0] for layer in layers if layer.name == f"{name}.attn1.to_q")
    tokens = numbers // channels
    adapters = element_size * tokens * sum(kept.get(layer.name, 0) for layer in layers if ".attn1." in layer.name)
    return AttentionBlock(channels, tokens, text_tokens, element_size, adapters, f"{name}.attn2.to_k" in kept)


def _with_scores(piece: Piece, block: AttentionBlock, scores: Scores, waiting: int) -> Piece:
    """The piece where its attention has no fused kernel; `waiting` are the bytes of the skip connections."""
    forward = max(piece.forward, block.forward(scores) + waiting)
    if not piece.saved:
        return replace(piece, forward=forward)
    saved = piece.saved + block.saved(scores)
    backward = max(piece.backward, block.backward(scores) - saved)
    return replace(piece, saved=saved, backward=backward, forward=forward)


@dataclass(frozen=True)
class _Needs:
    """What a piece needs, in elements; as in Piece, the size of its output, and the part of `saved` that convolutions
    without a LoRA alone keep."""

    saved: int
    input: int
    backward: int
    forward: int
    output: int
    convolved: int = 0


def _groups(layout: UNetLayout) -> dict[str, list[Layer]]:
    """{piece: its layers}, in forward order: blocks by themselves, the rest by the module that holds it."""
    groups: dict[str, list[Layer]] = {}
    for name, layer in layout.layers.items():
        block = _BLOCK.match(name)
        groups.setdefault(block[0] if block else layer.block.ldm, []).append(layer)
    return groups


def _needs(
    name: str, layers: Sequence[Layer], kept: Mapping[str, int], latent: tuple[int, int], text_tokens: int
) -> _Needs:
    shapes = {layer.name.removeprefix(f"{name}."): layer.shape for layer in layers}
    is_upsampler = ".upsamplers." in layers[0].block.diffusers  # its convolution sees the next higher resolution
    level = layers[0].block.level - is_upsampler
    positions = math.prod(math.ceil(side / 2**level) for side in latent)
    adapters = 0
    for layer in layers:
        seen = text_tokens if _FROM_TEXT.search(layer.name) else 1 if _FROM_TIME.search(layer.name) else positions
        is_conv = len(layer.shape) == 4  # saves the second convolution's input too
        adapters += kept.get(layer.name, 0) * seen * (1 + is_conv)

    if "attn1.to_q" in shapes:
        c, inner = shapes["attn1.to_out.0"][0] * positions, shapes["ff.net.2"][1] * positions
        text = 2 * shapes["attn2.to_k"][0] * text_tokens
        widest = (6 if f"{name}.ff.net.0.proj" in kept else 4) * inner  # an adapted layer: base, change and their sum
        return _Needs(9 * c + 3 * inner + text + adapters, c, c + 3 * inner, 6 * c + widest, c)
    if "in_layers.0" in shapes:
        c_in, c_out = shapes["in_layers.0"][0] * positions, shapes["in_layers.2"][0] * positions
        inputs_gradient = 2 * c_in * (f"{name}.in_layers.2" in kept)
        backward = max(2 * c_out, 2 * c_in - 2 * c_out + inputs_gradient)  # the output half is released by then
        first, second = (f"{name}.{conv}" not in kept for conv in ("in_layers.2", "out_layers.3"))
        return _Needs(3 * (c_in + c_out) + adapters, c_in, backward, 3 * c_in, c_out, first * c_in + second * c_out)
    if "proj_in" in shapes:
        c = shapes["norm"][0] * positions
        return _Needs(c + adapters, c, 2 * c, 3 * c, c)
    if name == "out":
        c = shapes["0"][0] * positions
        return _Needs(3 * c + adapters, c, c, 2 * c, 0, c * ("out.2" not in kept))
    if len(layers[0].shape) == 4:
        c_out, c_in = (channels * positions for channels in layers[0].shape[:2])
        shrinks = 4 if name.startswith("input_blocks.") else 1
        own = c_in * (layers[0].name not in kept)
        return _Needs(c_in + adapters, c_in, c_in, c_in + c_out, c_out // shrinks, own)
    return _Needs(adapters, 0, 0, 0, 0)


def _carries_gradient(layer: Layer) -> bool:
    """Whether a gradient passes through the layer's weight matrix: not where its input is the prompt or the time."""
    return len(layer.shape) > 1 and not (_FROM_TEXT.search(layer.name) or _FROM_TIME.search(layer.name))
