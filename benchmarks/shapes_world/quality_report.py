"""docs/quality.md: the tables and contact sheets of a run of the quality benchmark."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from benchmarks.ldm_unet import SDXL, UNet, layer_shapes
from benchmarks.word_concepts import Kind
from duolora_core.report import picture_grid

from .calibration import Alone
from .judging import summarise
from .methods import OURS
from .names import CONTENTS, STYLES, Split
from .several import STEPS_PER_LORA, Together
from .trials import Outcome


@dataclass(frozen=True)
class Findings:
    """Everything that a run of the benchmark measured."""

    table: Mapping[str, Sequence[Outcome]]
    strengths: Sequence[tuple[float, float]]
    several: Sequence[Together]
    loras: Mapping[tuple[Kind, int], Alone]
    base: tuple[float, float]
    pictures: int
    seconds: float
    split: Split

    @property
    def which(self) -> str:
        """What its pairs are, in words."""
        return "held-out" if self.split == "test" else "development"


def write_report(findings: Findings, docs: Path) -> None:
    """Writes quality.md and its pictures below `docs`."""
    pictures = docs / "quality"
    pictures.mkdir(parents=True, exist_ok=True)
    contact_sheet(findings.table).save(pictures / "contact_sheet.png", optimize=True)
    parts = [
        _HEAD,
        _table(findings),
        _SHEET,
        _strengths(findings),
        _several(findings),
        _alone(findings),
        _cost(findings),
    ]
    (docs / "quality.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def contact_sheet(table: Mapping[str, Sequence[Outcome]]) -> Image.Image:
    """One row for each method and one column for each case; the same noise down a column."""
    cases = [outcome.case.name for outcome in next(iter(table.values()))]
    rows = [[outcome.examples[0] for outcome in row] for row in table.values()]
    names = [f"{name}  {summarise([o.verdict for o in row], 1).harmonic:.2f}" for name, row in table.items()]
    return picture_grid(rows, names, cases, cell=64)


def _table(findings: Findings) -> str:
    lines = [
        f"## {len(next(iter(findings.table.values())))} {findings.which} pairs of {findings.pictures} pictures",
        "| method | content | style | harmonic mean [95 %] | both at once | leak [95 %] | trained | seconds | kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in findings.table.items():
        it = summarise([outcome.verdict for outcome in row])
        seconds = sum(outcome.seconds for outcome in row) / len(row)
        size = sum(outcome.bytes for outcome in row) / len(row) / 1000
        shown = f"**{name}**" if name == OURS else name
        lines.append(
            f"| {shown} | {it.content:.3f} | {it.style:.3f} | {it.harmonic:.3f} [{it.interval[0]:.3f}, "
            f"{it.interval[1]:.3f}] | {it.both:.3f} | {it.leak:.3f} [{it.leak_interval[0]:.3f}, "
            f"{it.leak_interval[1]:.3f}] | {row[0].parameters:,} | {seconds:.1f} | {f'{size:.0f}' if size else '-'} |"
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _strengths(findings: Findings) -> str:
    rows = {name: row for name, row in findings.table.items() if len(row[0].seen) > 1}
    if not rows:
        return ""
    strengths = [(1.0, 1.0), *findings.strengths]
    heads = " | ".join(f"{content} / {style}" for content, style in strengths)
    lines = [
        "## Content against style over strengths",
        "",
        "Content accuracy / style accuracy (harmonic mean) at content strength / style strength, set after the merge; "
        "all but the first on a quarter of the pictures.",
        "",
        f"| method | {heads} |",
        "|---" * (len(strengths) + 1) + "|",
    ]
    for name, row in rows.items():
        cells: list[str] = []
        for i in range(len(strengths)):
            it = summarise([outcome.verdicts[i] for outcome in row], draws=1)
            cells.append(f"{it.content:.2f} / {it.style:.2f} ({it.harmonic:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _several(findings: Findings) -> str:
    if not findings.several:
        return ""
    columns = list(dict.fromkeys((row.kind, row.concepts) for row in findings.several))
    heads = [
        f"{count} contents, 1 style" if kind == "content" else f"1 content, {count} styles" for kind, count in columns
    ]
    lines = [
        "## Several contents or several styles in one LoRA",
        "",
        "Each is asked for by its own word; content / style (harmonic mean), over four draws of the "
        f"{findings.which} concepts. *joint*: all LoRAs in one merge, {STEPS_PER_LORA} steps for each. *stacked, "
        "weaker*: contents at 1/n and the style at 0.8. *router alone*: SSR-Merge's, without training. *combined*: "
        "each pair merged by itself, the merges added with weights 1/n.",
        "",
        f"| way | {' | '.join(heads)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for way in dict.fromkeys(row.way for row in findings.several):
        rows = {(row.kind, row.concepts): row for row in findings.several if row.way == way}
        cells = [
            f"{row.content:.2f} / {row.style:.2f} ({row.harmonic:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}])"
            for row in (rows[column] for column in columns)
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _alone(findings: Findings) -> str:
    content, style = findings.base
    lines = [
        "## Each LoRA alone",
        "",
        f"The base model on its own words: content {content:.3f}, style {style:.3f}. Then, for each of these concepts, "
        "the accuracy of its word on the prompts it was trained on and with every known entry of the other kind, how "
        "far it leaves that other word to the prompt, and the median over layers of ‖ΔW‖₂ / ‖W‖₂.",
        "",
        "| LoRA | own prompts | elsewhere | other word there | relative norm |",
        "|---|---|---|---|---|",
    ]
    for (kind, label), each in sorted(findings.loras.items()):
        entry = (CONTENTS if kind == "content" else STYLES)[label]
        lines.append(
            f"| {entry.name} ({kind}, {entry.looks}) | {each.own:.3f} | {each.elsewhere:.3f} | {each.obeyed:.3f} | "
            f"{each.relative_norm:.3f} |"
        )
    for role in ("content", "style"):
        rows = [each for (kind, _), each in findings.loras.items() if kind == role]
        numbers = torch.tensor([(e.own, e.elsewhere, e.obeyed, e.relative_norm) for e in rows]).mean(0).tolist()
        lines.append(f"| mean, {role} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")
    return "\n".join(lines)


def _cost(findings: Findings) -> str:
    gates, masks = sdxl_parameters()
    return (
        "## What it costs\n\n"
        f"On SDXL's real structure two rank-64 LoRAs on all attention linears have {gates:,} gates, where ZipLoRA "
        f"trains {masks:,} masks over outputs: {masks / gates:.1f} times as many.\n\n"
        f"Computed in {findings.seconds / 60:.0f} minutes on {os.cpu_count()} CPU cores by `make bench-quality`; the "
        "seconds above are those of one merge on one core. The settings were chosen with "
        "`python -m benchmarks.shapes_world.ablation`; what it printed is in [log.md](log.md)."
    )


def sdxl_parameters(rank: int = 64) -> tuple[int, int]:
    """(gates of ZipRank, masks of ZipLoRA over outputs) for two LoRAs on every attention linear of SDXL."""
    with torch.device("meta"):
        shapes = layer_shapes(UNet(SDXL))
    outs = [shape[0] for name, shape in shapes.items() if re.search(r"\.attn[12]\.to_(q|k|v|out\.0)$", name)]
    return 2 * rank * len(outs), 2 * sum(outs)


_HEAD = """# Quality, measured

This page is generated by `make bench-quality`. Everything is measured on the *shapes world*
(`benchmarks/shapes_world/`): a small diffusion model of SDXL's structure that paints one shape in one style, with
concept LoRAs for shapes and styles that it never saw. It shows how the methods rank under equal conditions; it does not
say how a merge of two SDXL LoRAs will look.

An oracle, trained apart from everything else, says which content and which style a picture shows, or that it shows
none. *Content* and *style* are its accuracies on pictures of the combined prompt, *both at once* the share of pictures
with both right, *harmonic mean* that of content and style, mean over pairs, with a bootstrap interval over pairs and
pictures, and *leak* the share in which a content of the style LoRA's training pictures shows up instead. All methods
merge the same files and start from the same noise; those that train see the same pictures. Settings were chosen on
other concepts (the development ones); these were looked at once they were fixed."""

_SHEET = """![One row for each method, one column for each pair](quality/contact_sheet.png)

One row for each method (with its harmonic mean), one column for each pair, the same noise down a column."""
