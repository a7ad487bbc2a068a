"""The nodes. Each is inputs → configuration → one engine call → outputs; everything of the host is in `host/`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .adjust import BlockProbe, ContentStyleSlider
from .apply import ApplyMergedLora, MultiConceptCombine
from .baseline import BaselineMerge
from .compare import CompareGrid
from .loaders import LoadContentLora, LoadStyleLora
from .lora_strengths import LoraStrengths
from .masks import LoadMasks
from .merge import ZipRankMerge
from .options import MergeOptionsNode
from .report import MergeReport
from .save import SaveMergedLora
from .score import ScoreMerge
from .train_concept import TrainConceptLora
from .train_options import TrainOptionsNode
from .unzip_image import UnzipImage

NODES: list[type[io.ComfyNode]] = [
    LoadContentLora,
    LoadStyleLora,
    ZipRankMerge,
    MergeOptionsNode,
    ApplyMergedLora,
    MultiConceptCombine,
    SaveMergedLora,
    LoadMasks,
    BaselineMerge,
    MergeReport,
    CompareGrid,
    ContentStyleSlider,
    LoraStrengths,
    BlockProbe,
    ScoreMerge,
    TrainConceptLora,
    UnzipImage,
    TrainOptionsNode,
]


class DuoLoraExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> DuoLoraExtension:
    """Called by ComfyUI when the pack is loaded."""
    return DuoLoraExtension()
