"""Which layers a training covers, what a LoRA looks like, and that it folds into an ordinary file."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch

from benchmarks.ldm_unet import SDXL
from duolora_core import kohya_state_dict, lora_from_tensors, match_to_model
from duolora_core.errors import SettingsError
from duolora_core.train_lora import LoraConfig, b_loras, concept_lora
from duolora_core.train_lora.target_modules import target_layers
from duolora_core.train_lora.trainable_lora import new_lora
from lora_trainings import deltas, grown
from tiny import ATTENTION, layout, pick
from worlds import dense_low_rank, relative


def test_attention_is_the_papers_560_layers_of_sdxl() -> None:
    table = layout(SDXL)
    names = target_layers(table, "attention")
    assert len(names) == 560 and names == pick(ATTENTION, table)


def test_each_coverage_adds_to_the_one_before_and_none_takes_embeddings_or_the_ends() -> None:
    wider = [
        set(target_layers(layout(), name))
        for name in ("attention", "attention and feed-forward", "transformers", "all")
    ]
    assert all(a < b for a, b in pairwise(wider))
    assert wider[1] - wider[0] == set(pick(r"\.ff\.net\.(0\.proj|2)$"))
    assert wider[2] - wider[1] == set(pick(r"\.proj_(in|out)$"))
    assert wider[3] - wider[2] == set(pick(r"(in_layers\.2|out_layers\.3|skip_connection|\.op|\d\.conv)$"))
    assert not any(re.search(r"emb|^input_blocks\.0\.|^out\.", name) for name in wider[3])


def test_b_lora_is_two_blocks_without_a_layer_in_common() -> None:
    loras = b_loras(layout(SDXL), LoraConfig(rank=2))
    blocks = {side: {layout(SDXL).layers[name].block.diffusers for name in lora.up} for side, lora in loras.items()}
    assert blocks == {"content": {"up_blocks.0.attentions.0"}, "style": {"up_blocks.0.attentions.1"}}
    assert all(len(lora.up) == 80 for lora in loras.values())


def test_b_lora_without_a_block_for_one_side_is_refused() -> None:
    with pytest.raises(SettingsError, match="style block"):
        b_loras(layout(), LoraConfig(rank=2), blocks="middle_block=content")


def test_a_new_lora_has_its_form_and_its_seed() -> None:
    form = LoraConfig(rank=5, alpha=2.0, coverage="all")
    one, same, other = (concept_lora(layout(), "style", form, seed)["style"] for seed in (1, 1, 2))
    assert one.rank == 5 and one.scale == 0.4
    for name, up in one.up.items():
        shape = layout().layers[name].shape
        assert up.shape == (shape[0], 5) and not bool(up.any())
        assert one.down[name].shape == (5, torch.Size(shape[1:]).numel())
        assert torch.equal(one.down[name], same.down[name]) and not torch.equal(one.down[name], other.down[name])
    wide = one.down["middle_block.0.in_layers.2"]
    assert float(wide.std()) == pytest.approx(wide.shape[1] ** -0.5, rel=0.05)


def test_a_fold_is_a_copy_that_a_file_gives_back() -> None:
    lora = grown(columns=True, alpha=1.5)["style"]
    folded = lora.fold()
    before = deltas(folded)
    placed = match_to_model(lora_from_tensors(kohya_state_dict(folded, torch.float32), "trained"), layout())
    assert set(placed.layers) == set(lora.up) and not placed.skipped
    assert all(relative(dense_low_rank(placed.layers[name]), before[name]) < 1e-6 for name in before)
    for name, up in lora.up.items():
        expected = (
            0.75 * (lora.columns[name] * lora.masks[name])[:, None].double() * (up.double() @ lora.down[name].double())
        )
        assert relative(before[name], expected) < 1e-6
        up.zero_()
    assert all(torch.equal(deltas(folded)[name], change) for name, change in before.items())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"coverage": "everything"}])
def test_a_form_outside_its_meaning_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        LoraConfig(**wrong)  # type: ignore[arg-type]


def test_a_rank_above_a_layers_width_does_no_harm() -> None:
    name = pick(r"^input_blocks\.4\.1\..*attn1\.to_q$")[0]
    lora = new_lora(layout(), [name], rank=200)
    lora.up[name] = torch.randn(lora.up[name].shape)
    placed = match_to_model(lora_from_tensors(kohya_state_dict(lora.fold(), torch.float32), "wide"), layout())
    assert relative(dense_low_rank(placed.layers[name]), deltas(lora.fold())[name]) < 1e-6
