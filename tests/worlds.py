"""Small worlds for the engine's tests: a tiny SDXL-shaped UNet, a denoiser over it, random gentle LoRAs in any format.

    factors = random_factors(layout(), names, rank=4, seed=1)    # {layer: Factors}, spectral norm 0.3 of the weight's
    tensors = spell(factors, FORMATS["peft"], alpha=2.0)         # a state dict as that trainer would write it
    content = concept(factors)                                   # read and placed
    network = with_changes(unet, {name: dense(f) for …})         # the slow reference: a copy with W + ΔW

References are dense and in float64; everything follows from a seed.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.ldm_unet import TINY, UNet, UNetConfig, layer_shapes
from duolora_core import (
    Concept,
    Gates,
    LoraFile,
    LoraPair,
    LowRank,
    Picture,
    UNetLayout,
    layout_from_shapes,
    lora_from_tensors,
    make_pair,
    open_gates,
    place,
)
from duolora_core.denoiser import Prediction
from duolora_core.pair import Basis

ATTENTION = r"\.attn[12]\.to_(q|k|v|out\.0)$"
"""The layers on which the paper counts its parameters."""

VARIED = (
    r"^time_embed\.0$|^label_emb\.0\.2$"  # embeddings, which have no spatial dimension
    r"|^input_blocks\.0\.0$|^input_blocks\.3\.0\.op$|^output_blocks\.2\.2\.conv$|^out\.2$"  # stem, resampling, head
    r"|^input_blocks\.4\.0\.|^middle_block\.0\.|^output_blocks\.8\.0\."  # whole resnets: 3x3, 1x1 and emb_layers
    r"|^(input_blocks\.5|output_blocks\.1|output_blocks\.4)\.1\.(proj_in|proj_out|.*blocks\.0\.(attn[12]|ff)\.)"
)
"""A sample of every kind of layer with a weight matrix, at every depth of the UNet (norms are left out by `pick`)."""

TEXT_SHAPES = {
    "te1.text_model.encoder.layers.0.self_attn.q_proj": (12, 12),
    "te1.text_model.encoder.layers.1.mlp.fc1": (48, 12),
    "te2.text_model.encoder.layers.0.self_attn.out_proj": (20, 20),
    "te2.text_model.encoder.layers.3.mlp.fc2": (20, 80),
}


@cache
def layout(config: UNetConfig = TINY) -> UNetLayout:
    with torch.device("meta"):
        return layout_from_shapes(layer_shapes(UNet(config)))


def pick(pattern: str, table: UNetLayout | None = None) -> tuple[str, ...]:
    """The layers with a weight matrix (linear or convolution) whose canonical name the pattern finds."""
    layers = (table or layout()).layers
    return tuple(name for name, layer in layers.items() if len(layer.shape) > 1 and re.search(pattern, name))


def tiny_unet(dtype: torch.dtype = torch.float64, seed: int = 0) -> UNet:
    """Weights of standard deviation 1/√(fan in), so that signals keep their size; norms near (1, 0). Frozen."""
    with torch.device("meta"):
        unet = UNet(TINY)
    unet.to_empty(device="cpu").to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for module in unet.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.data = noise / math.sqrt(parameter[0].numel())
            else:
                is_gain = name == "weight"
                parameter.data = 0.1 * noise + (1.0 if is_gain else 0.0)
    return unet.to(dtype).requires_grad_(False)


def weighted_modules(unet: nn.Module) -> dict[str, nn.Module]:
    """{layer: module} for every module with a weight, as a host's denoiser gives them."""
    return {name: m for name, m in unet.named_modules() if isinstance(getattr(m, "weight", None), Tensor)}


@dataclass(frozen=True)
class Condition:
    """What a prompt becomes: text states (tokens, context) and pooled embedding (pooled,)."""

    context: Tensor
    pooled: Tensor


def condition(seed: int, tokens: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    return Condition(
        torch.randn(tokens, TINY.context, generator=generator), torch.randn(TINY.pooled, generator=generator)
    )


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    return Picture(torch.randn(4, *size, generator=generator), condition(seed + 1000), condition(seed + 2000))


@cache
def sdxl_alphas() -> Tensor:
    """ā of the 1000 training timesteps of SDXL (scaled linear betas, 0.00085 to 0.012), float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0)


@dataclass(frozen=True)
class Seen:
    """One sample that went through the network."""

    x: Tensor
    sigma: float
    condition: Any
    with_gradient: bool


class TinyDenoiser:
    """The `Denoiser` protocol over a UNet, in the dtype of its weights; `seen` records every sample forwarded."""

    def __init__(self, unet: UNet, prediction: Prediction = "eps", spoil: Callable[[Tensor], Tensor] = lambda x0: x0):
        self.unet = unet
        self.layout = layout()
        self.modules: Mapping[str, nn.Module] = weighted_modules(unet)
        self.sigmas = ((1 - sdxl_alphas()) / sdxl_alphas()).sqrt().to(torch.float32)
        self.prediction: Prediction = prediction
        self.spoil = spoil
        self.seen: list[Seen] = []

    def __call__(self, x: Tensor, sigma: Tensor, conditions: Sequence[Any]) -> Tensor:
        for sample, level, cond in zip(x, sigma, conditions, strict=True):
            self.seen.append(Seen(sample.detach().clone(), float(level), cond, torch.is_grad_enabled()))
        wide = x.to(next(self.unet.parameters()).dtype)
        level = sigma.to(wide)[:, None, None, None]
        root = (1 + level.square()).sqrt()
        output = run(self.unet, wide / root, self.timesteps(sigma), conditions)
        x0 = wide - level * output if self.prediction == "eps" else wide / root.square() - output * level / root
        return self.spoil(x0)

    def timesteps(self, sigma: Tensor) -> Tensor:
        """The nearest training timestep of each sigma, (batch,)."""
        return (self.sigmas[None] - sigma[:, None]).abs().argmin(1)


def run(unet: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Sequence[Any]) -> Tensor:
    context = torch.stack([cond.context for cond in conditions]).to(latents)
    return unet(latents, timesteps, context, torch.stack([cond.pooled for cond in conditions]).to(latents))


def inputs(batch: int, seed: int = 0, size: int = 8) -> tuple[Tensor, Tensor, list[Condition]]:
    """Latents, timesteps and conditions of a batch, float64."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, size, size, generator=generator, dtype=torch.float64)
    timesteps = torch.randint(1000, (batch,), generator=generator)
    return latents, timesteps, [condition(seed + 10 * i) for i in range(batch)]


@dataclass(frozen=True)
class Factors:
    """A LoRA of one layer before any trainer's spelling: float32, its scale already 1."""

    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    down: Tensor  # (rank, in) or (rank, in, kh, kw); (rank, in, 1, 1) beside a mid
    mid: Tensor | None = None  # (rank, rank, kh, kw)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def scaled(self, factor: float) -> Factors:
        return Factors(self.up * factor, self.down, self.mid)


def random_factors(
    shapes: Mapping[str, tuple[int, ...]],
    rank: int | Mapping[str, int] = 4,
    seed: int = 0,
    strength: float = 0.3,
    with_mid: bool = False,
) -> dict[str, Factors]:
    """Random factors whose product has about `strength` times the spectral norm of a `tiny_unet` weight of that shape.

    With `with_mid`, convolutions larger than 1x1 are Tucker-factored as LoCon's.
    """
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Factors] = {}
    for name, shape in shapes.items():
        r = rank if isinstance(rank, int) else rank[name]
        tucker = with_mid and len(shape) == 4 and shape[2] > 1
        ones = (1,) * (len(shape) - 2)
        up = torch.randn(shape[0], r, *ones, generator=generator)
        down = torch.randn(r, shape[1], *(ones if tucker else shape[2:]), generator=generator)
        mid = torch.randn(r, r, *shape[2:], generator=generator) if tucker else None
        raw = Factors(up, down, mid)
        weight_norm = 1 + math.sqrt(shape[0] / math.prod(shape[1:]))
        made[name] = raw.scaled(strength * weight_norm / spectral_norm(raw))
    return made


def spectral_norm(factors: Factors) -> float:
    """Of ΔW, from its r columns' QR: ‖U V‖ = ‖R_u V‖, where V is `down` with the core multiplied in."""
    r_up = torch.linalg.qr(factors.up.flatten(1)).R  # (k, rank)
    down = factors.down.flatten(1)
    if factors.mid is not None:
        down = torch.einsum("rskl,si->rikl", factors.mid, down).flatten(1)
    return float(torch.linalg.matrix_norm(r_up @ torch.linalg.qr(down.T).R.T, 2))


def shapes_of(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    return {name: layout().layers[name].shape for name in names}


def dense(factors: Factors, gate: Tensor | None = None) -> Tensor:
    """ΔW in float64 and in the shape of the weight, by one sum over ranks per factor."""
    up, down = factors.up.to(torch.float64), factors.down.to(torch.float64)
    gate = torch.ones(up.shape[1], dtype=torch.float64) if gate is None else gate.to(torch.float64)
    if up.ndim == 2:
        return torch.einsum("or,r,ri->oi", up, gate, down)
    if factors.mid is None:
        return torch.einsum("or,r,rikl->oikl", up[:, :, 0, 0], gate, down)
    mid = factors.mid.to(torch.float64)
    return torch.einsum("or,r,rskl,si->oikl", up[:, :, 0, 0], gate, mid, down[:, :, 0, 0])


def with_changes(unet: UNet, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor] | None = None) -> UNet:
    """A copy of the UNet with W + ΔW (and b + Δb): the slow reference for everything that is attached or merged."""
    changed = copy.deepcopy(unet)
    modules = weighted_modules(changed)
    for name, change in weights.items():
        weight = modules[name].get_parameter("weight")
        weight.data += change.to(weight).reshape(weight.shape)
    for name, change in (biases or {}).items():
        bias = modules[name].get_parameter("bias")
        bias.data += change.to(bias)
    return changed


def hooks(unet: nn.Module) -> int:
    """How many forward hooks hang on the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())  # pyright: ignore[reportPrivateUsage]


def add(*terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of several {layer: ΔW}; a layer missing in one is zero there."""
    total: dict[str, Tensor] = {}
    for term in terms:
        for name, change in term.items():
            total[name] = total[name] + change if name in total else change
    return total


@dataclass(frozen=True)
class Format:
    """How a trainer spells a layer of the UNet and of the text encoders, and the parts of its adapter."""

    unet: Callable[[str], str]
    text: Callable[[str], str] | None
    up: str
    down: str
    mid: str | None = None
    alpha: str | None = None
    only: str = ""  # a pattern of the layers that the format can name


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _diffusers(name: str) -> str:
    return layout().layers[name].diffusers


def _text(one: str, two: str) -> Callable[[str], str]:
    return lambda name: name.replace("te1.", one).replace("te2.", two)


def _kohya_text(name: str) -> str:
    return f"lora_{_flat(name)}"


def _lycoris_text(name: str) -> str:
    return "lycoris_" + _flat(_text("text_encoder.", "text_encoder_2.")(name))


_KOHYA = {"up": ".lora_up.weight", "down": ".lora_down.weight", "mid": ".lora_mid.weight", "alpha": ".alpha"}

FORMATS: dict[str, Format] = {
    "kohya_ldm": Format(lambda n: f"lora_unet_{_flat(n)}", _kohya_text, **_KOHYA),
    "kohya_diffusers": Format(lambda n: f"lora_unet_{_flat(_diffusers(n))}", _kohya_text, **_KOHYA),
    "diffusers": Format(
        lambda n: f"unet.{_diffusers(n)}",
        _text("text_encoder.", "text_encoder_2."),
        ".lora_B.weight",
        ".lora_A.weight",
        alpha=".alpha",
    ),
    "diffusers_old": Format(lambda n: f"unet.unet.{_diffusers(n)}", None, ".lora.up.weight", ".lora.down.weight"),
    "processor": Format(
        lambda n: "unet." + re.sub(r"\.(to_q|to_k|to_v|to_out)(\.0)?$", r".processor.\1", _diffusers(n)),
        None,
        "_lora.up.weight",
        "_lora.down.weight",
        only=ATTENTION,
    ),
    "peft": Format(
        lambda n: f"base_model.model.{_diffusers(n)}",
        _text("base_model.model.text_encoder.", "base_model.model.text_encoder_2."),
        ".lora_B.default.weight",
        ".lora_A.default.weight",
        alpha=".alpha",
    ),
    "lycoris": Format(lambda n: f"lycoris_{_flat(_diffusers(n))}", _lycoris_text, **_KOHYA),
    "comfy": Format(
        lambda n: f"diffusion_model.{n}",
        _text("text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."),
        **_KOHYA,
    ),
}


def spell(
    factors: Mapping[str, Factors],
    form: Format = FORMATS["kohya_ldm"],
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The state dict of a file in one format; with `alpha` the factors are divided by alpha / rank, so ΔW stays."""
    tensors: dict[str, Tensor] = {}
    for name, layer in factors.items():
        if name.startswith(("te1.", "te2.")):
            assert form.text is not None
            key = form.text(name)
        else:
            key = form.unet(name)
        tensors[key + form.up] = (layer.up / (1 if alpha is None else alpha / layer.rank)).to(dtype)
        tensors[key + form.down] = layer.down.to(dtype, copy=True)
        if layer.mid is not None:
            assert form.mid is not None
            tensors[key + form.mid] = layer.mid.to(dtype)
        if alpha is not None:
            assert form.alpha is not None
            tensors[key + form.alpha] = torch.tensor(alpha)
    return tensors


def lora(
    factors: Mapping[str, Factors], name: str = "test.safetensors", offsets: Mapping[str, Tensor] | None = None
) -> LoraFile:
    """A LoraFile as ComfyUI's Train LoRA hands it over; `offsets` are `{layer.diff or layer.diff_b: (channels,)}`."""
    extra = {f"diffusion_model.{key}": value for key, value in (offsets or {}).items()}
    return lora_from_tensors({**spell(factors, FORMATS["comfy"]), **extra}, name)


def concept(
    factors: Mapping[str, Factors],
    strength: float = 1.0,
    name: str = "test.safetensors",
    offsets: Mapping[str, Tensor] | None = None,
) -> Concept:
    return place(lora(factors, name, offsets), layout(), strength)


@dataclass(frozen=True)
class World:
    """A pair with the factors it was made from."""

    content: Mapping[str, Factors]
    style: Mapping[str, Factors]
    pair: LoraPair

    def dense(self, gates: Gates) -> dict[str, Tensor]:
        """The merged ΔW of every layer in float64, from the pair's own basis: U diag(m) D, summed over both sides."""
        return add(
            *(
                {name: dense_low_rank(low_rank, gate(name)) for name, low_rank in side.items()}
                for side, gate in ((self.pair.content, gates.content), (self.pair.style, gates.style))
            )
        )


def dense_low_rank(low_rank: LowRank, gate: Tensor | None = None) -> Tensor:
    """(outputs, inputs) in float64."""
    gate = torch.ones(low_rank.rank) if gate is None else gate.detach()
    return torch.einsum("or,r,ri->oi", *(t.to(torch.float64) for t in (low_rank.up, gate, low_rank.down)))


def world(
    content_layers: Sequence[str],
    style_layers: Sequence[str] | None = None,
    ranks: tuple[int, int] = (4, 4),
    basis: Basis = "svd",
    seed: int = 0,
    offsets: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] = ({}, {}),
) -> World:
    content = random_factors(shapes_of(content_layers), ranks[0], seed + 1)
    style = random_factors(shapes_of(content_layers if style_layers is None else style_layers), ranks[1], seed + 2)
    concepts = (
        concept(content, name="content.safetensors", offsets=offsets[0]),
        concept(style, name="style.safetensors", offsets=offsets[1]),
    )
    return World(content, style, make_pair(*concepts, layout(), basis))


def random_gates(pair: LoraPair, seed: int = 0) -> Gates:
    """Gates around 0.6, some of them negative."""
    gates = open_gates(pair)
    gates.values = 0.6 + 0.5 * torch.randn(gates.values.shape, generator=torch.Generator().manual_seed(seed))
    return gates


def relative(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖ in float64."""
    expected = expected.to(torch.float64)
    return float((actual.to(torch.float64) - expected).norm() / expected.norm())


def bare_concept(layers: Mapping[str, LowRank], sha256: str = "", strength: float = 1.0) -> Concept:
    """A concept made of LowRanks as they are, for layer tables too large to hold real weights."""
    return Concept(LoraFile("bare.safetensors", sha256, {}), strength, layers, {}, {}, {})
