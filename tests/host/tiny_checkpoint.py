"""Builds a small SDXL-family checkpoint that ComfyUI's own loader recognises as Segmind Vega.

Run by a host's python, never by the test process:

    <host python> tiny_checkpoint.py --host <ComfyUI folder> --out FILE.safetensors

The loader compares the width (320), the context (2048), the pooled size (2816) and the transformer depths of the down
blocks, but neither the channel multipliers nor the depths of the other blocks. With every multiplier at 1 and one
transformer block per up and middle attention the UNet has 105 M parameters instead of 745 M.

The weights are random except for the UNet's last convolution, which is fitted in closed form to predict the noise of
smooth random latents. So the network is a denoiser with a loss clearly below that of predicting nothing, and
samples stay finite. Beside FILE.safetensors lies FILE.layers.json, the table of its linears and convolutions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

UNET_CONFIG: dict[str, Any] = json.loads((Path(__file__).parent / "fixtures_pack" / "unet.json").read_bytes())
LATENT_SCALE = 0.13025  # SDXL's latents times this have a standard deviation of about 1


def fill(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Give weights a standard deviation of 1/sqrt(fan in), norms 1, biases 0."""
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            parameter.data.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    for child in module.modules():
        if isinstance(child, torch.nn.GroupNorm | torch.nn.LayerNorm):
            torch.nn.init.ones_(child.weight)
        if isinstance(bias := getattr(child, "bias", None), torch.Tensor):
            torch.nn.init.zeros_(bias)


def smooth_latents(batch: int, generator: torch.Generator, size: int = 16) -> torch.Tensor:
    """Blurry random latents of unit variance, (batch, 4, size, size)."""
    coarse = torch.randn(batch, 4, size // 4, size // 4, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic")
    return smooth / smooth.std()


def build_unet(generator: torch.Generator) -> tuple[torch.nn.Module, float]:
    """A random UNet whose last convolution is fitted to the noise, and its loss on fresh latents."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    operations = comfy.ops.disable_weight_init
    unet = UNetModel(**UNET_CONFIG, dtype=torch.float32, device="cpu", operations=operations).eval()
    fill(unet, generator)
    loss = fit_last_convolution(unet, generator)
    return unet, loss


def fit_last_convolution(unet: Any, generator: torch.Generator) -> float:
    """Ridge regression of the target on the last features; returns the relative squared error on a held-out batch."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas_cumprod = (1 - betas).cumprod(0)
    features: list[torch.Tensor] = []
    hook = unet.out[1].register_forward_hook(lambda module, args, output: features.append(output))

    def rows(batch: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        latents = smooth_latents(batch, generator)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.linspace(0, 999, batch).round().long()
        signal = alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1)
        features.clear()
        unet(
            signal * latents + sigma * noise,
            timesteps.float(),
            context=torch.randn(batch, 77, 2048, generator=generator),
            y=torch.randn(batch, 2816, generator=generator),
        )
        patches = F.unfold(features[0], 3, padding=1).transpose(1, 2).flatten(0, 1)  # (batch * 256, 320 * 9)
        weight = signal.reciprocal().clamp(max=8)  # an error matters more where there is more noise
        weight = weight.flatten().repeat_interleave(latents[0, 0].numel())[:, None]  # (batch * 256, 1)
        return patches, noise.flatten(2).transpose(1, 2).flatten(0, 1), weight  # (batch * 256, 4)

    with torch.no_grad():
        gram, moment, count = torch.zeros(()), torch.zeros(()), 0
        for _ in range(4):
            patches, target, weight = rows()
            weighted = (patches * weight).T
            gram, moment, count = gram + weighted @ patches, moment + weighted @ target, count + len(patches)
        ridge = 0.8 * count * torch.eye(len(gram))
        solution = torch.linalg.solve(gram + ridge, moment)  # (320 * 9, 4)
        convolution = unet.out[2]
        convolution.weight.copy_(solution.T.reshape(convolution.weight.shape))
        patches, target, _ = rows()
        error = F.mse_loss(patches @ solution, target) / target.square().mean()
    hook.remove()
    return error.item()


def build_vae(generator: torch.Generator) -> Any:
    """A random TAESD with latents of unit variance and pictures round mid grey."""
    from comfy.taesd.taesd import TAESD

    vae: Any = TAESD(latent_channels=4).eval()
    fill(vae, generator)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("conv.4.weight"):
                parameter.mul_(0.5)  # a residual block's last convolution: keeps the depth from adding up
        pictures = F.interpolate(torch.rand(8, 3, 8, 8, generator=generator), size=(64, 64), mode="bilinear")
        normalise_output(vae.taesd_encoder, pictures, mean=0.0, std=1.0)
        normalise_output(vae.taesd_decoder, 2 * smooth_latents(8, generator, 8), mean=0.5, std=0.2)
        vae.vae_scale.fill_(LATENT_SCALE)
        vae.vae_shift.fill_(0.0)
    return vae


def normalise_output(network: Any, sample: torch.Tensor, mean: float, std: float) -> None:
    """Scale the last convolution so that each output channel has this mean and deviation on the sample."""
    output = network(sample)
    gain = std / output.std(dim=(0, 2, 3))
    network[-1].weight.mul_(gain.view(-1, 1, 1, 1))
    network[-1].bias.copy_(mean - gain * output.mean(dim=(0, 2, 3)))


def layer_table(unet: torch.nn.Module) -> list[dict[str, Any]]:
    """Every linear and convolution: its LDM name, its diffusers name and its weight's shape."""
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(UNET_CONFIG)  # has two names for label_emb; SDXL's is add_embedding
    diffusers = {ldm: name for name, ldm in names.items() if not name.startswith("class_embedding.")}
    return [
        {
            "ldm": name,
            "diffusers": diffusers[f"{name}.weight"].removesuffix(".weight"),
            "shape": list(module.weight.shape),
        }
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write the file under another name first, so that a half-written checkpoint is never taken for a whole one."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)


def main() -> None:
    """Parse the arguments, build, write."""
    parser = argparse.ArgumentParser(description="Build a small SDXL-family checkpoint for the host tests.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    sys.path.insert(0, str(options.host))
    sys.argv = sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = True
    generator = torch.Generator().manual_seed(options.seed)
    unet, loss = build_unet(generator)
    tensors = {f"model.diffusion_model.{name}": tensor.half() for name, tensor in unet.state_dict().items()}
    vae = build_vae(generator)
    tensors |= {f"first_stage_model.{name}": tensor.clone() for name, tensor in vae.state_dict().items()}
    options.out.with_suffix(".layers.json").write_text(json.dumps(layer_table(unet), indent=1))
    write(options.out, tensors, {"relative_loss": f"{loss:.4f}"})
    sys.stdout.write(f"{options.out}: relative loss {loss:.4f}\n")


if __name__ == "__main__":
    main()
