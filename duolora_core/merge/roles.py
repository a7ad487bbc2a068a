"""Which blocks of the UNet carry content and which carry style (section 3.3 of arXiv 2504.13206)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from ..errors import SettingsError
from ..files.sanitize import sanitize
from ..model.layout import Block, UNetLayout

Role = Literal["content", "style", "neutral"]
PriorPreset = Literal["resolution", "b_lora_aware", "authors_code", "none"]

B_LORA_STYLE_BLOCK = "up_blocks.0.attentions.1"  # W5 of B-LoRA, arXiv 2403.14572
AUTHORS_MATCHES: tuple[tuple[str, Role], ...] = (
    ("down_blocks.2", "content"),  # `up_blocks.2` has no attention and `mid_blocks` matches nothing in diffusers' SDXL
    ("down_blocks.1", "style"),
    ("up_blocks.1", "style"),
)


def layer_roles(layout: UNetLayout, prior: str = "resolution") -> dict[str, Role]:
    """{canonical layer: role} for a preset or for a custom string such as `mid_block=content, up_blocks.1=style`.

    - `resolution`: the deepest attention level is content, every shallower one style (the paper's rule).
    - `b_lora_aware`: the same, but up_blocks.0.attentions.1 is style, as B-LoRA and InstantStyle found.
    - `authors_code`: what the string matching of the authors' script amounts to on SDXL.
    - `none`: no block has a role.
    - custom: block names of diffusers or of ComfyUI (`output_blocks.1`), comma or line separated; where several
      names fit, the one that covers the fewest blocks decides; blocks not named are neutral.

    Raises:
        SettingsError: a block of a custom string is not in this model, or its role is none of the three.
    """
    if prior in get_args(PriorPreset):
        return {name: _preset_role(layer.block, layout, prior) for name, layer in layout.layers.items()}
    rules = _parse(prior, layout)
    closest_first = sorted(rules, key=lambda name: sum(_names(name, block) for block in layout.blocks))
    return {name: _custom_role(layer.block, closest_first, rules) for name, layer in layout.layers.items()}


def _preset_role(block: Block, layout: UNetLayout, preset: str) -> Role:
    if block.part == "other" or preset == "none":
        return "neutral"
    if preset == "authors_code":
        for start, role in AUTHORS_MATCHES:
            if block.diffusers.startswith(start):
                return role
        return "neutral"
    if preset == "b_lora_aware" and block.diffusers == B_LORA_STYLE_BLOCK:
        return "style"
    return "content" if block.level >= layout.deepest_attention_level else "style"


def _parse(prior: str, layout: UNetLayout) -> dict[str, Role]:
    rules: dict[str, Role] = {}
    for item in filter(None, (part.strip() for part in prior.replace("\n", ",").split(","))):
        name, equals, role = (piece.strip() for piece in item.partition("="))
        if not equals or role not in get_args(Role):
            raise SettingsError(
                f"Layer prior '{sanitize(item)}' is not understood. Write blocks as "
                f"'mid_block=content, up_blocks.1=style', "
                f"with the roles {', '.join(get_args(Role))}, or use one of {', '.join(get_args(PriorPreset))}."
            )
        if not any(_names(name, block) for block in layout.blocks):
            known = ", ".join(block.diffusers for block in layout.blocks if ".attentions." in block.diffusers)
            raise SettingsError(
                f"Layer prior: this model has no block '{sanitize(name)}'. Its attention blocks are {known}."
            )
        rules[name] = role  # type: ignore[assignment]  # checked against Role above
    if not rules:
        raise SettingsError(f"The layer prior is empty. Use one of {', '.join(get_args(PriorPreset))} or name blocks.")
    return rules


def _names(name: str, block: Block) -> bool:
    return any(spelled == name or spelled.startswith(name + ".") for spelled in (block.diffusers, block.ldm))


def _custom_role(block: Block, closest_first: Sequence[str], rules: Mapping[str, Role]) -> Role:
    for name in closest_first:
        if _names(name, block):
            return rules[name]
    return "neutral"
