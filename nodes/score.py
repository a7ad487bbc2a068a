"""Score Merge: how much the pictures of a merge are like both references, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..duolora_core.errors import SettingsError
from ..duolora_core.files.picture_batch import check_pictures
from ..duolora_core.report.scores import self_similarity, similarity
from .host.outputs import blocked_output
from .host.vision import picture_embeddings, text_embedding, vision_kind
from .ui.schema import schema

_CSD = (
    "CSD-s, the paper's measure of style, is left out: it needs a checkpoint of its own that ComfyUI's CLIP vision "
    "loader cannot read."
)


@dataclass(frozen=True)
class _Row:
    """One line of the table; None where nothing was measured."""

    measure: str
    content: float | None = None
    style: float | None = None
    text: float | None = None


class ScoreMerge(io.ComfyNode):
    """DINO, CLIP-I and CLIP-T with the models that are loaded anyway."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ScoreMerge",
            search_aliases=["duolora", "clip score", "dino score", "similarity", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images"),
                io.ClipVision.Input("clip_vision"),
                io.Image.Input("content_images", optional=True),
                io.Image.Input("style_images", optional=True),
                io.ClipVision.Input("clip_vision_2", optional=True),
                io.Clip.Input("clip", optional=True),
                io.String.Input("prompt", optional=True, multiline=True, default=""),
            ],
            outputs=[
                io.String.Output("table"),
                io.Float.Output("content"),
                io.Float.Output("style"),
                io.Float.Output("text"),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        clip_vision: Any,
        content_images: Tensor | None = None,
        style_images: Tensor | None = None,
        clip_vision_2: Any = None,
        clip: Any = None,
        prompt: str = "",
    ) -> io.NodeOutput:
        wants_text = clip is not None and bool(prompt.strip())
        if content_images is None and style_images is None and not wants_text:
            raise SettingsError("Nothing to compare with: connect content_images, style_images, or clip with a prompt.")
        for name, batch in (("images", images), ("content_images", content_images), ("style_images", style_images)):
            if batch is not None:
                check_pictures(batch, name)
        rows: list[_Row] = []
        notes: list[str] = []
        for vision in (clip_vision, *([clip_vision_2] if clip_vision_2 is not None else [])):
            row, reference_rows = _scored(vision, images, content_images, style_images)
            rows += [row, *reference_rows]
            if wants_text:
                text = text_embedding(clip, prompt.strip(), vision)
                if isinstance(text, str):
                    notes.append(f"CLIP-T is left out beside {row.measure}: {text}.")
                else:
                    rows.append(_Row("CLIP-T", text=similarity(picture_embeddings(vision, images), text)))
        table = "\n".join([_table(rows), "", f"Means over {len(images)} pictures.", *notes, _CSD])
        first = next((row.text for row in rows if row.text is not None), None)
        scores = (rows[0].content, rows[0].style, first)
        numbers = [blocked_output() if score is None else score for score in scores]
        return io.NodeOutput(table, *numbers, ui=ui.PreviewText(table))


def _scored(vision: Any, images: Tensor, content: Tensor | None, style: Tensor | None) -> tuple[_Row, list[_Row]]:
    """What one vision model says of the pictures, and of the references among themselves as the measure for it."""
    name = {"CLIP": "CLIP-I", "DINO": "DINO"}[vision_kind(vision)]
    found = picture_embeddings(vision, images)
    references = [None if pictures is None else picture_embeddings(vision, pictures) for pictures in (content, style)]
    scores = [None if each is None else similarity(found, each) for each in references]
    among = [None if each is None else self_similarity(each) for each in references]
    reference_rows = [_Row(f"{name} of the references among themselves", *among)] if among != [None, None] else []
    return _Row(name, *scores), reference_rows


def _table(rows: list[_Row]) -> str:
    lines = ["| measure | content | style | text |", "|---|---|---|---|"]
    for row in rows:
        shown = ["" if score is None else f"{score:.3f}" for score in (row.content, row.style, row.text)]
        lines.append(f"| {row.measure} | {' | '.join(shown)} |")
    return "\n".join(lines)
