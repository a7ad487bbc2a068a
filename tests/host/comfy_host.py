"""Starts a ComfyUI checkout as a server, and talks to it over HTTP.

    with ComfyServer(find_hosts()[0], pack_root=root, fixtures_pack=fixtures) as server:
        picture = server.images(server.run(graph))["9"][0]  # (height, width, 3), uint8

The server works in a temporary base directory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from host.comfy_events import EventStream
from host.graphs import Graph
from host.hosts import Host, free_port, offline_environment

History = dict[str, Any]


class GraphRejected(Exception):
    """The server found the graph, or a part of it, invalid."""

    def __init__(self, error: dict[str, Any], node_errors: dict[str, Any]) -> None:
        super().__init__(json.dumps({"error": error, "node_errors": node_errors}, indent=1))
        self.error = error
        self.node_errors = node_errors


class GraphFailed(Exception):
    """A node raised while the graph ran."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.node_id: str = details.get("node_id", "")
        self.node_type: str = details.get("node_type", "")
        self.exception_type: str = details.get("exception_type", "")
        self.exception_message: str = details.get("exception_message", "")
        self.traceback = "".join(details.get("traceback", []))
        super().__init__(f"{self.node_type}: {self.exception_type}: {self.exception_message}\n{self.traceback}")


class GraphInterrupted(GraphFailed):
    """The graph was stopped by an interrupt."""


def lay_out_base(base: Path, packs: Mapping[str, Path | None]) -> None:
    """Makes the folders of a base directory, and links each pack that has an __init__.py into its custom nodes."""
    folders = ("custom_nodes", "models/checkpoints", "models/loras", "input", "output", "temp", "user")
    for folder in folders:
        (base / folder).mkdir(parents=True)
    for name, source in packs.items():
        if source is not None and (source / "__init__.py").is_file():
            (base / "custom_nodes" / name).symlink_to(source.resolve(), target_is_directory=True)


class ComfyServer:
    """A running ComfyUI in a temporary base directory; a context manager."""

    def __init__(
        self,
        host: Host,
        pack_root: Path | None = None,
        fixtures_pack: Path | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Load pack_root as ComfyUI-DuoLoRA if it has an __init__.py; add the flags to main.py's."""
        self.host = host
        self.flags = flags
        self.packs = {"ComfyUI-DuoLoRA": pack_root, "duolora_fixtures": fixtures_pack}
        self.client_id = uuid.uuid4().hex
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> ComfyServer:
        """Start the server and wait until it answers."""
        self.base = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="duolora-host-")))
        try:
            lay_out_base(self.base, self.packs)
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """End the server and delete its base directory."""
        self._exit.close()

    @property
    def checkpoints(self) -> Path:
        """The server's checkpoint folder."""
        return self.base / "models" / "checkpoints"

    @property
    def loras(self) -> Path:
        """The server's LoRA folder: write a file here and name it in a graph."""
        return self.base / "models" / "loras"

    def _start(self, timeout: float = 180) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.log = self.base / "server.log"
        command = [str(self.host.python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--base-directory", str(self.base)]
        command += ["--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}", *self.flags]
        log = self._exit.enter_context(self.log.open("wb"))
        self.process = subprocess.Popen(
            command,
            cwd=self.host.path,
            env=offline_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._exit.callback(self._stop)
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError):  # refused until it listens
                self.system_stats = self._get("/system_stats")
                return
            self._check_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"ComfyUI {self.host.version} was not ready in {timeout:.0f} s\n{self._log_tail()}")
            time.sleep(0.1)

    def _stop(self) -> None:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)

    def crash(self) -> None:
        """Kills the server as a crash would, at once and without a farewell; its base directory stays."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start_again(self) -> None:
        """Starts it anew in the same base directory."""
        self._start()

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            status = self.process.returncode
            raise RuntimeError(f"ComfyUI {self.host.version} ended with status {status}\n{self._log_tail()}")

    def log_text(self) -> str:
        """All that the server has written to stdout and stderr."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-40:])

    @contextlib.contextmanager
    def log_of(self) -> Generator[io.StringIO, None, None]:
        """Collects what the server logs inside the block; read it with getvalue() after the block."""
        start, text = self.log.stat().st_size, io.StringIO()
        yield text
        text.write(self.log.read_bytes()[start:].decode("utf-8", errors="replace"))

    def _open(self, route: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{route}", data=data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return bytes(response.read())

    def _get(self, route: str) -> Any:
        return json.loads(self._open(route))

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """The server's description of all nodes, or of one ({} where it has no such node)."""
        info: dict[str, Any] = self._get("/object_info" if node is None else f"/object_info/{urllib.parse.quote(node)}")
        return info

    def queue(self, graph: Graph) -> str:
        """Queue an API graph; returns its prompt id. Raises GraphRejected if any part of it is invalid."""
        prompt_id = str(uuid.uuid4())
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        try:
            reply = json.loads(self._open("/prompt", body))
        except urllib.error.HTTPError as rejection:
            with rejection:
                reply = json.loads(rejection.read())
            raise GraphRejected(reply.get("error", {}), reply.get("node_errors", {})) from None
        if reply["node_errors"]:  # the valid branches were queued all the same
            self._open("/queue", {"delete": [prompt_id]})
            self._open("/interrupt", {"prompt_id": prompt_id})
            raise GraphRejected(reply.get("error", {}), reply["node_errors"])
        return prompt_id

    def wait(self, prompt_id: str, timeout: float = 120) -> History:
        """The history entry of a prompt once it is there. Raises GraphFailed, GraphInterrupted or TimeoutError."""
        deadline = time.monotonic() + timeout
        while prompt_id not in (history := self._get(f"/history/{prompt_id}")):
            self._check_alive()
            if time.monotonic() > deadline:
                self.interrupt()
                raise TimeoutError(f"the graph took more than {timeout:.0f} s\n{self._log_tail()}")
            time.sleep(0.03)
        entry: History = history[prompt_id]
        messages = dict(entry["status"]["messages"])
        if "execution_interrupted" in messages:
            raise GraphInterrupted(messages["execution_interrupted"])
        if entry["status"]["status_str"] != "success":
            raise GraphFailed(messages.get("execution_error", {}))
        return entry

    def run(self, graph: Graph, timeout: float = 120) -> History:
        """Queue an API graph and wait for its history entry."""
        return self.wait(self.queue(graph), timeout)

    def interrupt(self) -> None:
        """Stop what runs now."""
        self._open("/interrupt", {})

    def free(self) -> None:
        """Drop cached outputs and unload the models before the next prompt."""
        self._open("/free", {"unload_models": True, "free_memory": True})

    def forget(self) -> None:
        """Clear the history, as the page's button does; it holds every prompt and what came out of it."""
        self._open("/history", {"clear": True})

    def images(self, history: History) -> dict[str, list[np.ndarray]]:
        """The pictures of every output node, as uint8 arrays (height, width, 3)."""
        return {
            node: [self._image(item) for item in output["images"]]
            for node, output in history["outputs"].items()
            if "images" in output
        }

    def _image(self, item: dict[str, str]) -> np.ndarray:
        query = urllib.parse.urlencode({key: item[key] for key in ("filename", "subfolder", "type")})
        with Image.open(io.BytesIO(self._open(f"/view?{query}"))) as picture:
            return np.asarray(picture.convert("RGB"))

    def texts(self, history: History) -> dict[str, list[str]]:
        """The ui texts of every output node."""
        return {node: output["text"] for node, output in history["outputs"].items() if "text" in output}

    @contextlib.contextmanager
    def events(self) -> Generator[EventStream, None, None]:
        """Collects websocket messages and previews of the prompts queued inside the block."""
        self.client_id = uuid.uuid4().hex  # a reused id could be dropped by the closing of the last connection
        with EventStream(f"ws://{self.address}/ws?clientId={self.client_id}") as stream:
            yield stream
