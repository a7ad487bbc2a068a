"""The nodes that our workflows use, as far as a saved graph depends on them: ours by the snapshot, core's by a list.

tests/host/test_workflows.py compares the list with every ComfyUI that it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from host.node_schema import read_schema

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
PREFIX = "DuoLoRA"


@dataclass(frozen=True)
class Input:
    """A socket or a widget.

    Attributes:
        extra: how many values a saved graph holds besides this widget's own: control_after_generate, an upload button
        options: of a combo; empty where they are files or the host's own business
    """

    name: str
    type: str
    optional: bool = False
    extra: int = 0
    options: tuple[str, ...] = ()

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGETS


@dataclass(frozen=True)
class NodeType:
    """Inputs in the order of the node's schema; outputs by their types."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...] = ()
    is_output: bool = False

    @property
    def shown(self) -> tuple[Input, ...]:
        """In the order in which a page saves them: sockets first."""
        return tuple(sorted(self.inputs, key=lambda each: each.is_widget))

    @property
    def widgets(self) -> tuple[Input, ...]:
        return tuple(each for each in self.inputs if each.is_widget)


def _core(inputs: str, outputs: str = "", is_output: bool = False) -> NodeType:
    """From "name:TYPE …"; a plus after the type means one value more in a saved graph."""
    rows = [row.split(":") for row in inputs.split()]
    return NodeType(
        tuple(Input(name, kind.rstrip("+"), extra=kind.count("+")) for name, kind in rows),
        tuple(outputs.split()),
        is_output,
    )


_TRAINING = (
    "model:MODEL latents:LATENT positive:CONDITIONING batch_size:INT grad_accumulation_steps:INT steps:INT "
    "learning_rate:FLOAT rank:INT optimizer:COMBO loss_function:COMBO seed:INT+ training_dtype:COMBO lora_dtype:COMBO"
)
"""Where the versions part, a graph gives no more values, and each version takes its own defaults."""

CORE = {
    "CheckpointLoaderSimple": _core("ckpt_name:COMBO", "MODEL CLIP VAE"),
    "LoraLoader": _core(
        "model:MODEL clip:CLIP lora_name:COMBO strength_model:FLOAT strength_clip:FLOAT", outputs="MODEL CLIP"
    ),
    "CLIPTextEncode": _core("text:STRING clip:CLIP", "CONDITIONING"),
    "EmptyLatentImage": _core("width:INT height:INT batch_size:INT", "LATENT"),
    "KSampler": _core(
        "model:MODEL seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO positive:CONDITIONING "
        "negative:CONDITIONING latent_image:LATENT denoise:FLOAT",
        outputs="LATENT",
    ),
    "VAEDecode": _core("samples:LATENT vae:VAE", "IMAGE"),
    "VAEEncode": _core("pixels:IMAGE vae:VAE", "LATENT"),
    "LoadImage": _core("image:COMBO+", "IMAGE MASK"),
    "ImageBatch": _core("image1:IMAGE image2:IMAGE", "IMAGE"),
    "ImageScale": _core("image:IMAGE upscale_method:COMBO width:INT height:INT crop:COMBO", "IMAGE"),
    "SaveImage": _core("images:IMAGE filename_prefix:STRING", is_output=True),
    "PrimitiveStringMultiline": _core("value:STRING", "STRING"),
    "PrimitiveInt": _core("value:INT+", "INT"),
    "TrainLoraNode": _core(_TRAINING, "LORA_MODEL LOSS_MAP INT"),
}
OLDER = {"TrainLoraNode": _core(_TRAINING, "MODEL LORA_MODEL LOSS_MAP INT")}
"""As ComfyUI 0.3.64 has them."""

NOTES = {"Note", "MarkdownNote"}
"""Of the page itself, which no server knows."""


def ours() -> dict[str, NodeType]:
    """From tests/host/schema.json."""
    return {
        node_id: NodeType(
            tuple(
                Input(
                    row["name"],
                    row["type"],
                    row.get("optional", False),
                    int(row.get("control_after_generate", False)),
                    tuple(row.get("options", ())),
                )
                for row in node["inputs"]
            ),
            tuple(row["type"] for row in node["outputs"]),
            node_id in OUTPUT_NODES,
        )
        for node_id, node in read_schema().items()
    }


OUTPUT_NODES = {"DuoLoRASaveMerged", "DuoLoRACompareGrid", "DuoLoRAMergeReport", "DuoLoRAScoreMerge"}
"""Of ours: they run without anything behind them."""
FILE_COMBOS = {"lora_name", "masks"}
"""Combos of ours whose options are the artist's files."""


def node_types(older: bool = False) -> dict[str, NodeType]:
    """All that a workflow may use, in an older ComfyUI or in a present one."""
    return ours() | CORE | (OLDER if older else {})
