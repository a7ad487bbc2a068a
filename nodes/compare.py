"""Compare Grid: the same seeds by several methods, side by side and labelled."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ..duolora_core.errors import SettingsError
from ..duolora_core.files.picture_batch import check_pictures
from ..duolora_core.report import picture_grid
from .ui.images import as_batch, as_pictures
from .ui.schema import schema
from .ui.widgets import text_input

MOST_COLUMNS = 6


class CompareGrid(io.ComfyNode):
    """One column for each connected batch, one row for each picture in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        batches = [io.Image.Input(f"images_{i}", optional=i > 1) for i in range(1, MOST_COLUMNS + 1)]
        return schema(
            "CompareGrid",
            search_aliases=["duolora", "image grid", "side by side", "xy plot", "comparison"],
            is_output_node=True,
            inputs=[
                batches[0],
                text_input("labels", placeholder="stacked\nZipLoRA\nDuoLoRA"),
                text_input("row_labels", placeholder="seed 1\nseed 2"),
                io.Int.Input("cell", default=512, min=64, max=1024, step=8),
                io.String.Input("note", default=""),
                *batches[1:],
            ],
            outputs=[io.Image.Output("grid")],
        )

    @classmethod
    def execute(
        cls, images_1: Tensor, labels: str, row_labels: str, cell: int, note: str, **others: Tensor | None
    ) -> io.NodeOutput:
        columns = _connected({"images_1": images_1, **others})
        for name, batch in columns.items():
            check_pictures(batch, name)
        counts = {name: len(batch) for name, batch in columns.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise SettingsError(
                f"Each column needs as many pictures as the others, but {found}. Use the same batch size everywhere."
            )
        names = _names(labels, len(columns), "labels", "columns") or [f"column {i + 1}" for i in range(len(columns))]
        rows = list(zip(*(as_pictures(batch) for batch in columns.values()), strict=True))
        row_names = _names(row_labels, len(rows), "row_labels", "rows") or [""] * len(rows)
        image = as_batch([picture_grid(rows, row_names, names, cell=cell, note=note.strip())])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def _connected(inputs: dict[str, Tensor | None]) -> dict[str, Tensor]:
    numbered = (f"images_{i}" for i in range(1, MOST_COLUMNS + 1))
    return {name: batch for name in numbered if (batch := inputs.get(name)) is not None}


def _names(text: str, count: int, widget: str, what: str) -> list[str]:
    """The lines of a widget; none if it is empty.

    Raises:
        SettingsError: another number of lines than columns or rows.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and len(lines) != count:
        raise SettingsError(f"{widget} has {len(lines)} lines for {count} {what}: write one line for each, or none.")
    return lines
