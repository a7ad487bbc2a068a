"""A host's own graph executor, run in this process: what a server does for each prompt, without the server.

    executor = InProcess()
    outcome = executor.run(graph)

For tests that must reach into the process in which the nodes run. Enter the host first, see `inside_host.enter`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import types
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from graphs import Graph  # beside the script that runs
from PIL import Image


@dataclass(frozen=True)
class Outcome:
    """How a prompt ended.

    Attributes:
        status: "success", "error" or "interrupted"
        message: of the error, with its type in front
        node_type: of the node that ended it
        outputs: what the output nodes gave to the page
        inputs: of the node that raised, as the page is told of them
    """

    status: str
    message: str
    node_type: str
    outputs: dict[str, Any]
    inputs: dict[str, Any]


class InProcess:
    """Loads all nodes, custom ones too, and runs API graphs; results stay cached from one prompt to the next."""

    def __init__(self) -> None:
        # First, as in main.py: `nodes` puts a folder on the path whose `utils` hides the host's own.
        importlib.import_module("utils.extra_config")
        import comfy.model_management
        import comfy.utils
        import execution
        import server

        self._nodes: Any = importlib.import_module("nodes")
        page = types.SimpleNamespace(
            client_id=None,
            last_node_id=None,
            last_prompt_id=None,
            sockets_metadata={},
            send_sync=lambda *_: None,
            send_progress_text=lambda *_: None,
        )
        server.PromptServer.instance = page
        # The server's own hook sends progress to the page, and checks for Cancel each time.
        comfy.utils.set_progress_bar_global_hook(
            lambda *_, **__: comfy.model_management.throw_exception_if_processing_interrupted()
        )
        asyncio.run(self._nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
        takes = inspect.signature(execution.PromptExecutor).parameters
        bounds = {"cache_args": {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}} if "cache_args" in takes else {}
        self._executor = execution.PromptExecutor(page, cache_type=execution.CacheType.CLASSIC, **bounds)
        self._validate = execution.validate_prompt

    def add_node(self, name: str, node: type) -> None:
        """Makes a class of the test a node."""
        self._nodes.NODE_CLASS_MAPPINGS[name] = node

    def forget(self) -> None:
        """Drops what is cached of all nodes."""
        self._executor.reset()

    def run(self, graph: Graph) -> Outcome:
        """Runs a graph to its end. What is cached of nodes that it does not have is dropped, as in a server.

        Raises:
            ValueError: the host finds the graph invalid.
        """
        prompt_id = str(uuid.uuid4())
        graph = {name: {**each, "inputs": dict(each["inputs"])} for name, each in graph.items()}
        valid, error, outputs, node_errors = asyncio.run(self._validate(prompt_id, graph, None))
        if not valid or node_errors:
            raise ValueError(f"{error} {node_errors}")
        self._executor.execute(graph, prompt_id, {}, outputs)
        messages = dict(self._executor.status_messages)
        if "execution_interrupted" in messages:
            ended = messages["execution_interrupted"]
            return Outcome("interrupted", "", ended["node_type"], {}, {})
        if "execution_error" in messages:
            ended = messages["execution_error"]
            message = f"{ended['exception_type']}: {ended['exception_message']}"
            return Outcome("error", message, ended["node_type"], {}, ended["current_inputs"])
        return Outcome("success", "", "", self._executor.history_result["outputs"], {})


def picture(outcome: Outcome, name: str) -> np.ndarray:
    """The picture that an output node of a successful prompt saved, (height, width, 3) uint8."""
    import folder_paths

    (item,) = outcome.outputs[name]["images"]
    folder = folder_paths.get_directory_by_type(item["type"])
    with Image.open(Path(folder) / item["subfolder"] / item["filename"]) as saved:
        return np.asarray(saved.convert("RGB"))
