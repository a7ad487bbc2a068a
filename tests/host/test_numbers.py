"""Numbers through the real nodes: precisions of storage and arithmetic, masks that collapse, dials at their ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from duolora_core.merge.masks_file import read_masks
from host.comfy_host import ComfyServer, GraphFailed
from host.graphs import Graph, node, text_to_image
from host.merge_graphs import CONTENT, STYLE, add_merge, add_save, apply_and_paint, give_pictures, models_only, painted

pytestmark = pytest.mark.usefixtures("loras")

TOLERANCE = {"compute bf16": 0.1, "compute fp16": 0.05, "fp8 storage": 0.3}
"""How far each loss may be from the one in fp32, relatively: rounding, and for fp8 a model with 3 bits of mantissa."""

LATENT_SCALE = 0.13025
"""Of SDXL's latent format: what the UNet sees is that times what a sampler gives out."""

COLLAPSE: dict[str, Any] = {"layer_prior_weight": 10.0, "options": {"learning_rate": 0.5, "sparsity": 10.0}}
"""One step of this leaves next to nothing of the role that each block is to keep lean."""


@pytest.fixture(scope="module")
def fp32(server: ComfyServer, checkpoint: str) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Losses and masks of the merge that the others are compared with."""
    return trained(server, checkpoint, "fp32", "checkpoint", {"compute_dtype": "fp32"})


def trained(
    server: ComfyServer, checkpoint: str, name: str, model: str, options: dict[str, Any]
) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Losses and masks of a merge of two steps on given pictures."""
    graph = models_only(checkpoint)
    if model == "fp8":
        weights = server.base / "models" / "diffusion_models" / checkpoint
        if not weights.exists():
            weights.parent.mkdir(exist_ok=True)
            weights.symlink_to(server.checkpoints / checkpoint)
        graph["fp8"] = node("UNETLoader", unet_name=checkpoint, weight_dtype="fp8_e4m3fn")
    add_merge(graph, CONTENT, STYLE, seed=7, model=[model, 0], options=options)
    give_pictures(server, graph)
    add_save(graph, ["merge", 0], f"numbers/{name}", what="masks only")
    graph["loss"] = node("PreviewAny", source=["merge", 2])
    losses = json.loads(server.texts(server.run(graph, 600))["loss"][0])
    (path,) = (server.loras / "numbers").glob(f"{name}_*")
    return losses, dict(read_masks(path).values)


@pytest.mark.parametrize(
    ("case", "model", "options"),
    [
        ("compute bf16", "checkpoint", {"compute_dtype": "bf16"}),
        ("compute fp16", "checkpoint", {"compute_dtype": "fp16"}),
        ("fp8 storage", "fp8", {}),
    ],
)
def test_precisions_agree_with_fp32(
    server: ComfyServer,
    checkpoint: str,
    fp32: tuple[dict[str, list[float]], dict[str, torch.Tensor]],
    case: str,
    model: str,
    options: dict[str, Any],
) -> None:
    """All numbers are finite, the first step's losses within a stated tolerance, and most masks move the same way."""
    losses, masks = trained(server, checkpoint, case.replace(" ", "_"), model, options)
    expected, expected_masks = fp32
    for term in ("reconstruction_content", "reconstruction_style"):
        assert losses[term][0] == pytest.approx(expected[term][0], rel=TOLERANCE[case]), term
    moved, expected_moved = (torch.cat([values - 1 for values in each.values()]) for each in (masks, expected_masks))
    assert bool(moved.isfinite().all())
    assert float(torch.nn.functional.cosine_similarity(moved, expected_moved, dim=0)) > 0.7


def collapsed(checkpoint: str) -> Graph:
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=8, steps=2, **COLLAPSE)
    graph["info"] = node("PreviewAny", source=["merge", 3])
    graph["report"] = node("DuoLoRAMergeReport", merged=["merge", 0])
    graph["words"] = node("PreviewAny", source=["report", 1])
    return graph


def test_masks_that_collapse_are_told_by_the_merge_and_by_its_report(server: ComfyServer, checkpoint: str) -> None:
    """In the same plain words, with what to lower."""
    texts = server.texts(server.run(collapsed(checkpoint), 300))
    for text in (texts["info"][0], texts["words"][0]):
        assert "masks have nearly closed" in text
        assert "Lower layer_prior_weight or the learning rate" in text


def test_loaders_at_the_ends_of_their_dials_merge_to_finite_pictures(server: ComfyServer, checkpoint: str) -> None:
    graph = give_pictures(server, add_merge(models_only(checkpoint), CONTENT, STYLE, seed=9))
    graph["merge.content"]["inputs"]["strength"] = -5.0
    picture = painted(server, apply_and_paint(graph, ["merge", 0], style=-1.0))
    assert np.ptp(picture) > 0


def test_saving_nothing_is_refused(server: ComfyServer, checkpoint: str) -> None:
    """Both dials at 0 leave no tensor; a file without any would be refused by every loader."""
    graph = add_merge(models_only(checkpoint), CONTENT, STYLE, seed=10)
    add_save(graph, ["merge", 0], "numbers/nothing", content_strength=0.0, style_strength=0.0)
    with pytest.raises(GraphFailed, match="Nothing is left to save"):
        server.run(graph, 300)
    assert not list((server.loras / "numbers").glob("nothing*"))


def test_the_last_timestep_of_zero_terminal_snr_is_as_core_samples_it(
    server: ComfyServer, checkpoint_v_ztsnr: str, tmp_path: Path
) -> None:
    """One step of core's sampler from the highest noise level to 0 is our x0; the gradient through it is finite."""
    graph = text_to_image(checkpoint_v_ztsnr, positive="a dog", size=64, steps=1, cfg=1.0, seed=3)
    del graph["decode"], graph["save"]
    graph["latents"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="terminal")
    server.run(graph, 300)
    (file,) = (server.base / "output").rglob("terminal*.latent")
    expected = load_file(file)["latent_tensor"] * LATENT_SCALE  # as the UNet sees it

    sigma = torch.tensor([4518.34])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    save_file({"x": noise * (1 + sigma.square()).sqrt(), "sigma": sigma}, tmp_path / "given")
    evaluation = node("DuoLoRATestDenoise", model=["checkpoint", 0], clip=["clip", 0], prompts="a dog")
    evaluation["inputs"] |= {"given": str(tmp_path / "given"), "found": str(tmp_path / "found")}
    server.run(models_only(checkpoint_v_ztsnr) | {"denoise": evaluation}, 300)
    found = load_file(tmp_path / "found")
    assert expected.std() > 0.01
    assert torch.allclose(found["x0"], expected, atol=5e-3 * float(expected.std()))
    assert bool(found["gradient"].isfinite().all())
