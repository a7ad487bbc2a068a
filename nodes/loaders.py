"""Load Content LoRA and Load Style LoRA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from comfy_api.latest import io

from ..duolora_core.errors import SettingsError
from ..duolora_core.files.file_hash import file_hash
from ..duolora_core.files.picture_batch import check_pictures
from ..duolora_core.lora.beside import beside
from ..duolora_core.lora.match import RANK_LIMIT
from .host import files
from .run.load_lora import LoaderSettings, load_connected, load_file, load_stack
from .run.loaded_lora import LoadedLora
from .ui.schema import schema
from .ui.sockets import ConceptSocket, LoraModelSocket, LoraStackSocket
from .ui.widgets import strength_input, text_input

FROM_SOCKET = "(connected LORA_MODEL)"
FROM_STACK = "(connected LORA_STACK)"
_CONNECTED = (None, FROM_SOCKET, FROM_STACK)


class _LoadConcept(io.ComfyNode):
    """Both loaders: a file or a connected LORA_MODEL, its trigger prompt, and pictures if there are any."""

    role: ClassVar[Literal["content", "style"]]
    example: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            f"Load{cls.role.title()}",
            search_aliases=["duolora", f"{cls.role} lora", "merge lora"],
            inputs=[
                io.Combo.Input("lora_name", options=[FROM_SOCKET, *files.lora_names(), FROM_STACK]),
                text_input("prompt", placeholder=cls.example),
                strength_input("strength"),
                LoraModelSocket.Input("lora", optional=True),
                io.Image.Input("pictures", optional=True),
                LoraStackSocket.Input("lora_stack", optional=True),
                io.Int.Input("adapter_rank", default=RANK_LIMIT, min=1, max=1024, optional=True),
                ConceptSocket.Input("others", optional=True),
            ],
            outputs=[ConceptSocket.Output(cls.role), io.String.Output("info")],
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
        others: LoadedLora | None = None,
    ) -> io.NodeOutput:
        if pictures is not None:
            check_pictures(pictures, "pictures")
        batches = None if pictures is None else [pictures]
        settings = LoaderSettings(cls.role, prompt, strength, adapter_rank, cls.example)
        if lora_name == FROM_STACK:
            loaded = load_stack(lora_stack, settings, batches)
        elif lora_name == FROM_SOCKET:
            loaded = [load_connected(lora, settings, batches)]
        else:
            loaded = [load_file(lora_name, settings, batches)]
        before = () if others is None else others.chain
        if others is not None and others.role != cls.role:
            raise SettingsError(f"A {others.role} LoRA is connected to others. Chain {cls.role} LoRAs with each other.")
        loras = [*before, *(each for each, _ in loaded)]
        info = [text for _, text in loaded]
        if before:
            info.append(f"merged together with {', '.join(each.file.name for each in before)}")
        return io.NodeOutput(replace(loras[-1], others=tuple(loras[:-1])), "\n\n".join(info))

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


class LoadStyleLora(_LoadConcept):
    role = "style"
    example = "a watercolor painting in wtrclr style"
