"""Load Content LoRA and Load Style LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from comfy_api.latest import io
from torch import Tensor

from ..duolora_core.errors import SettingsError
from ..duolora_core.files.file_hash import file_hash
from ..duolora_core.files.picture_batch import check_pictures
from ..duolora_core.files.sanitize import listed
from ..duolora_core.lora.adapters import PlainLora
from ..duolora_core.lora.beside import beside, words_beside
from ..duolora_core.lora.match import RANK_LIMIT
from ..duolora_core.lora.metadata import trigger_words
from ..duolora_core.lora.read import LoraFile, lora_from_tensors, read_lora
from .host import files
from .run.loaded_lora import LoadedLora
from .run.lora_stack import only_entry
from .ui.schema import schema
from .ui.sockets import CATEGORY, ConceptSocket, LoraModelSocket, LoraStackSocket
from .ui.widgets import strength_input, text_input

FROM_SOCKET = "(connected LORA_MODEL)"
FROM_STACK = "(connected LORA_STACK)"
_CONNECTED = (None, FROM_SOCKET, FROM_STACK)


class _LoadConcept(io.ComfyNode):
    """Both loaders: a file or a connected LORA_MODEL, its trigger prompt, and pictures if there are any."""

    role: ClassVar[Literal["content", "style"]]
    example: ClassVar[str]
    what: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            f"Load{cls.role.title()}",
            display_name=f"Load {cls.role.title()} LoRA",
            category=CATEGORY,
            description=f"Reads the LoRA of {cls.what} in any common format, for ZipRank Merge and Baseline Merge.",
            search_aliases=["duolora", f"{cls.role} lora", "merge lora"],
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=[FROM_SOCKET, *files.lora_names(), FROM_STACK],
                    tooltip=f"The LoRA file of {cls.what}. SDXL family: LoRA, LoCon, DoRA, LoHa, LoKr, OFT and the "
                    "like, of kohya, diffusers, PEFT, LyCORIS, ComfyUI.",
                ),
                text_input(
                    "prompt",
                    "A whole prompt with which this LoRA alone paints well: its trigger words and what else "
                    "is to be seen, the medium too. Left empty, the trigger words in the file are used, but bare words "
                    "can merge much worse than a sentence.",
                    placeholder=cls.example,
                ),
                strength_input(
                    "strength",
                    "The strength at which this LoRA is at its best alone. The merge learns from it at that strength.",
                ),
                LoraModelSocket.Input(
                    "lora",
                    optional=True,
                    tooltip="A LoRA straight from Train LoRA. Choose '(connected LORA_MODEL)' above to use it.",
                ),
                io.Image.Input(
                    "pictures",
                    optional=True,
                    tooltip=f"1 to 30 pictures of {cls.what}, best those that the LoRA was trained on. Without "
                    "them the merge samples its own with this LoRA.",
                ),
                LoraStackSocket.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="One LoRA of a stacker (Lora Manager, Efficiency, rgthree), with its strengths, which the "
                    "strength here multiplies. Choose '(connected LORA_STACK)' above to use it.",
                ),
                io.Int.Input(
                    "adapter_rank",
                    default=RANK_LIMIT,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip="Only for what is no plain LoRA (DoRA, LoHa, LoKr, OFT, full differences): the largest "
                    "rank that each layer is given. The merge says how much is lost; more rank loses less.",
                ),
            ],
            outputs=[
                ConceptSocket.Output(cls.role, tooltip=f"To the {cls.role} input of ZipRank Merge or Baseline Merge."),
                io.String.Output(
                    "info", tooltip="What was found in the file: layers, ranks, trigger words, skipped keys."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        lora_name: str,
        prompt: str,
        strength: float,
        lora: Any = None,
        pictures: Any = None,
        lora_stack: Any = None,
        adapter_rank: int = RANK_LIMIT,
    ) -> io.NodeOutput:
        if pictures is not None:
            check_pictures(pictures, "pictures")
        stacked = only_entry(lora_stack) if lora_name == FROM_STACK else None
        name = stacked.name if stacked else lora_name
        file = _read(name, lora)
        words = trigger_words(file.metadata, beside=() if name == FROM_SOCKET else words_beside(files.lora_path(name)))
        written = prompt.strip()
        prompt = written or ", ".join(words)
        if not prompt:
            raise SettingsError(
                f"{file.name} names no trigger words, so its prompt cannot be left empty. Write one as {cls.example!r}."
            )
        info = _describe(file, prompt, words)
        if not written:
            info += f"\nThe prompt is these words alone. A whole one, such as {cls.example!r}, can merge much better."
        text_strength = None
        if stacked:
            text_strength, strength = strength * stacked.text_strength, strength * stacked.strength
            info += f"\nfrom the stack, at strength {strength:g} and {text_strength:g} in the text encoders"
        batches = None if pictures is None else [pictures]
        loaded = LoadedLora(
            cls.role, file, prompt, strength, batches, text_strength=text_strength, adapter_rank=adapter_rank
        )
        return io.NodeOutput(loaded, info)

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **_: Any) -> str:
        """The file's content and what lies beside it: an overwritten one runs again, an untouched one does not.

        The host leaves out a name that comes through a link.
        """
        if lora_name is None or lora_name in _CONNECTED:
            return ""
        path = files.lora_path(lora_name)
        return " ".join(file_hash(each) for each in (path, *beside(path)))

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        known = lora_name in _CONNECTED or lora_name in files.lora_names()
        return known or f"{lora_name} is not in the loras folders. Refresh the list (press R) and choose it again."


class LoadContentLora(_LoadConcept):
    role = "content"
    example = "a photo of sks dog"
    what = "a subject (a person, animal, object)"


class LoadStyleLora(_LoadConcept):
    role = "style"
    example = "a watercolor painting in wtrclr style"
    what = "a style"


def _read(lora_name: str, lora: Any) -> LoraFile:
    if lora_name != FROM_SOCKET:
        return read_lora(files.lora_path(lora_name))
    if lora is None:
        raise SettingsError("No LoRA is chosen: pick a file, or connect a LORA_MODEL to the lora input.")
    if not isinstance(lora, Mapping) or not all(isinstance(value, Tensor) for value in lora.values()):
        raise SettingsError("The lora input holds no LORA_MODEL. Connect that of Train LoRA, or pick a file.")
    return lora_from_tensors(lora, "connected LORA_MODEL")


def _describe(file: LoraFile, prompt: str, words: list[str]) -> str:
    ranks = sorted({entry.rank for entry in file.entries.values() if isinstance(entry, PlainLora)})
    spread = f", rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "") if ranks else ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in file.kinds.items())
    lines = [
        f"{file.name}: {kinds} layers{spread}",
        *file.notes,
        f"prompt: {prompt}",
        f"trigger words in the file: {', '.join(words) or 'none'}",
    ]
    if file.offsets:
        lines.append(f"bias and norm changes: {len(file.offsets)}")
    lines += listed(f"skipped {key}: {reason}" for key, reason in file.skipped.items())
    if file.kinds.keys() - {PlainLora.kind}:
        lines.append("what is no plain LoRA becomes one on the model; the merge says at what rank and loss")
    return "\n".join(lines)
