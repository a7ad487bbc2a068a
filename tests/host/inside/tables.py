"""Our tables and schemas against the host's own classes."""

from __future__ import annotations

import inspect

import comfy.ops
import comfy.utils
import torch
from inside_host import DEPTHS, config_of, nodes_of_the_pack, unet

from benchmarks import ldm_unet
from duolora_core import layout_from_shapes


def check_layer_tables_are_the_hosts() -> None:
    """Names and shapes of SDXL, SSD-1B and Segmind-Vega are those of ComfyUI's UNet, diffusers names included."""
    for name in DEPTHS:
        modules = dict(unet(name, comfy.ops.disable_weight_init).named_modules())
        theirs = {
            layer: tuple(m.weight.shape) for layer, m in modules.items() if getattr(m, "weight", None) is not None
        }
        with torch.device("meta"):
            shapes = ldm_unet.layer_shapes(ldm_unet.UNet(getattr(ldm_unet, name)))
        assert shapes == theirs, name
        aliases = layout_from_shapes(shapes).aliases
        named = {
            key.removesuffix(".weight"): layer.removesuffix(".weight")
            for key, layer in comfy.utils.unet_to_diffusers(config_of(name)).items()
            if key.endswith(".weight") and layer.removesuffix(".weight") in shapes
        }
        assert named and {key: aliases[key] for key in named} == named, name


def check_every_input_reaches_execute_and_is_explained_and_bounded() -> None:
    """The ids of a schema's inputs are execute's parameters; all have a tooltip, every number bounds and a default."""
    nodes = nodes_of_the_pack()
    assert len(nodes) == 18
    for node in nodes:
        schema = node.GET_SCHEMA()
        ids = {each.id for each in schema.inputs}
        parameters = inspect.signature(node.execute).parameters.values()
        named = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
        takes_more = len(named) < len(parameters)
        assert named <= ids and (takes_more or named == ids), (schema.node_id, named ^ ids)
        assert schema.node_id.startswith("DuoLoRA")
        assert schema.description and schema.category and schema.display_name, schema.node_id
        for each in schema.inputs:
            bounds = (each.min, each.max, each.default) if hasattr(each, "min") else ()
            assert None not in bounds, (schema.node_id, each.id)
        assert all(each.tooltip for each in [*schema.inputs, *schema.outputs]), schema.node_id
