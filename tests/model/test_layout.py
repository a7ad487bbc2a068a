"""Layer names, levels and parameter counts of the real UNets against tables written by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.ldm_unet import SDXL, SEGMIND_VEGA, SSD_1B, TINY, UNetConfig
from duolora_core import LowRank, make_pair, open_gates
from tiny import ATTENTION, layout, pick
from worlds import bare_lora

MODELS = {"sdxl": SDXL, "ssd_1b": SSD_1B, "vega": SEGMIND_VEGA, "tiny": TINY}

OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.6.0.op": "down_blocks.1.downsamplers.0.conv",
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.2.conv": "up_blocks.1.upsamplers.0.conv",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESNETS = {  # block: (diffusers, whether its width changes, so that it has a shortcut)
    "input_blocks.1.0": ("down_blocks.0.resnets.0", False),
    "input_blocks.2.0": ("down_blocks.0.resnets.1", False),
    "input_blocks.4.0": ("down_blocks.1.resnets.0", True),
    "input_blocks.5.0": ("down_blocks.1.resnets.1", False),
    "input_blocks.7.0": ("down_blocks.2.resnets.0", True),
    "input_blocks.8.0": ("down_blocks.2.resnets.1", False),
    "middle_block.0": ("mid_block.resnets.0", False),
    "middle_block.2": ("mid_block.resnets.1", False),
    "output_blocks.0.0": ("up_blocks.0.resnets.0", True),
    "output_blocks.1.0": ("up_blocks.0.resnets.1", True),
    "output_blocks.2.0": ("up_blocks.0.resnets.2", True),
    "output_blocks.3.0": ("up_blocks.1.resnets.0", True),
    "output_blocks.4.0": ("up_blocks.1.resnets.1", True),
    "output_blocks.5.0": ("up_blocks.1.resnets.2", True),
    "output_blocks.6.0": ("up_blocks.2.resnets.0", True),
    "output_blocks.7.0": ("up_blocks.2.resnets.1", True),
    "output_blocks.8.0": ("up_blocks.2.resnets.2", True),
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
ATTENTIONS = {  # block: (diffusers, level, depth in SDXL, SSD-1B, Vega)
    "input_blocks.4.1": ("down_blocks.1.attentions.0", 1, (2, 2, 1)),
    "input_blocks.5.1": ("down_blocks.1.attentions.1", 1, (2, 2, 1)),
    "input_blocks.7.1": ("down_blocks.2.attentions.0", 2, (10, 4, 2)),
    "input_blocks.8.1": ("down_blocks.2.attentions.1", 2, (10, 4, 2)),
    "middle_block.1": ("mid_block.attentions.0", 2, (10, 0, 0)),
    "output_blocks.0.1": ("up_blocks.0.attentions.0", 2, (10, 4, 2)),
    "output_blocks.1.1": ("up_blocks.0.attentions.1", 2, (10, 4, 2)),
    "output_blocks.2.1": ("up_blocks.0.attentions.2", 2, (10, 10, 2)),
    "output_blocks.3.1": ("up_blocks.1.attentions.0", 1, (2, 2, 1)),
    "output_blocks.4.1": ("up_blocks.1.attentions.1", 1, (2, 1, 1)),
    "output_blocks.5.1": ("up_blocks.1.attentions.2", 1, (2, 1, 1)),
}
TRANSFORMER = (
    *(f"attn{i}.to_{part}" for i in (1, 2) for part in ("q", "k", "v", "out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)


def reference_names(model: int) -> dict[str, str]:
    """{LDM name: diffusers name} of SDXL (0), SSD-1B (1) or Vega (2), from the tables above."""
    names = dict(OUTER)
    for ldm, (diffusers, widens) in RESNETS.items():
        if ldm == "middle_block.2" and model > 0:  # a middle block of one resnet
            continue
        names |= {f"{ldm}.{ours}": f"{diffusers}.{theirs}" for ours, theirs in RESNET.items()}
        if widens:
            names[f"{ldm}.skip_connection"] = f"{diffusers}.conv_shortcut"
    for ldm, (diffusers, _, depths) in ATTENTIONS.items():
        if depths[model]:
            inner = ["norm", "proj_in", "proj_out"]
            inner += [f"transformer_blocks.{i}.{part}" for i in range(depths[model]) for part in TRANSFORMER]
            names |= {f"{ldm}.{name}": f"{diffusers}.{name}" for name in inner}
    return names


@pytest.mark.parametrize(
    ("model", "config"), [(0, SDXL), (1, SSD_1B), (2, SEGMIND_VEGA)], ids=["sdxl", "ssd_1b", "vega"]
)
def test_every_layer_has_its_diffusers_name(model: int, config: UNetConfig) -> None:
    found = {name: layer.diffusers for name, layer in layout(config).layers.items()}
    assert found == reference_names(model)


@pytest.mark.parametrize("config", list(MODELS.values()), ids=list(MODELS))
def test_attention_levels_are_those_of_the_block_table(config: UNetConfig) -> None:
    levels = {b.ldm: b.level for b in layout(config).blocks if ".attentions." in b.diffusers}
    assert levels == {ldm: level for ldm, (_, level, _) in ATTENTIONS.items() if ldm in levels}
    assert layout(config).deepest_attention_level == 2
    expected = {b.ldm: 2 if b.part == "mid" else level_of(b.diffusers) for b in layout(config).blocks}
    assert {b.ldm: b.level for b in layout(config).blocks} == expected


def level_of(diffusers: str) -> int:
    """Halvings of resolution from diffusers' own numbering: down counts up, up counts down."""
    part, _, rest = diffusers.partition(".")
    index = int(rest.split(".")[0]) if part in ("down_blocks", "up_blocks") else 0
    return 2 - index if part == "up_blocks" else index


@pytest.mark.parametrize("config", list(MODELS.values()), ids=list(MODELS))
def test_layers_stand_in_forward_order(config: UNetConfig) -> None:
    parts = [layer.block.part for layer in layout(config).layers.values() if layer.block.part != "other"]
    assert parts == sorted(parts, key=["down", "mid", "up"].index)
    numbers = [int(name.split(".")[1]) for name in layout(config).layers if name.startswith("input_blocks.")]
    assert numbers == sorted(numbers)  # 10 comes after 9, not after 1


@pytest.mark.parametrize("config", list(MODELS.values()), ids=list(MODELS))
def test_no_spelling_means_two_layers(config: UNetConfig) -> None:
    table = layout(config)
    owner: dict[str, str] = {}
    for name, layer in table.layers.items():
        for spelling in {name, layer.diffusers, name.replace(".", "_"), layer.diffusers.replace(".", "_")}:
            assert owner.setdefault(spelling, name) == name
            assert table.aliases[spelling] == name
    assert set(table.aliases.values()) == set(table.layers)


def test_kohya_counts_722_modules_in_sdxl() -> None:
    """What sd-scripts logs for SDXL: every linear and 1x1 convolution inside the transformers."""
    assert len(pick(r"\.(proj_in|proj_out|transformer_blocks\..*)$", layout(SDXL))) == 722


@pytest.mark.parametrize(
    ("config", "layers", "ziprank", "ziplora"),
    [(SDXL, 560, 71_680, 1_331_200), (SSD_1B, 272, 34_816, 614_400), (SEGMIND_VEGA, 120, 15_360, 256_000)],
    ids=["sdxl", "ssd_1b", "vega"],
)
def test_trainable_scalars_are_the_papers(config: UNetConfig, layers: int, ziprank: int, ziplora: int) -> None:
    """0.07 M, 0.03 M and 0.02 M gates at rank 64 (Table 1), where ZipLoRA has one per output channel, 1.33 M."""
    table = layout(config)
    names = pick(ATTENTION, table)
    assert len(names) == layers
    concept = bare_lora({name: hollow(table.layers[name].shape, 64) for name in names})
    pair = make_pair(concept, concept, table, basis="factors")
    assert open_gates(pair).values.numel() == ziprank
    assert sum(2 * table.layers[name].shape[0] for name in names) == ziplora


def hollow(shape: tuple[int, ...], rank: int) -> LowRank:
    """A LowRank of the right shapes that takes no memory."""
    return LowRank(torch.zeros(()).expand(shape[0], rank), torch.zeros(()).expand(rank, shape[1]))
