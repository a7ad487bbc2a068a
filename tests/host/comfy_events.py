"""The websocket side of a running ComfyUI: progress messages and binary preview frames."""

from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Callable
from typing import Any

import websocket
from PIL import Image

PREVIEW_IMAGE = 1  # the event number of a frame: then 4 bytes of picture format, then the picture


class EventStream:
    """Collects, in a thread of its own, what the server sends to one client; a context manager."""

    def __init__(self, address: str) -> None:
        self._connection = websocket.create_connection(address, timeout=30, http_no_proxy=["*"])
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="comfy-events", daemon=True)
        self.messages: list[dict[str, Any]] = []
        self.previews: list[Image.Image] = []

    def __enter__(self) -> EventStream:
        """Start collecting."""
        self._thread.start()
        self.wait_for(lambda stream: bool(stream.messages), timeout=30)  # the greeting: from here on nothing is missed
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection; what was collected stays."""
        self._closing.set()
        self._thread.join(timeout=10)
        self._connection.close()

    def _collect(self) -> None:
        self._connection.settimeout(0.2)  # how long closing may wait for this thread
        while not self._closing.is_set():
            try:
                frame = self._connection.recv()
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketConnectionClosedException, OSError):
                return  # the server has ended
            with self._changed:
                self._add(frame)
                self._changed.notify_all()

    def _add(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self.messages.append(json.loads(frame))
        elif struct.unpack(">I", frame[:4])[0] == PREVIEW_IMAGE:
            self.previews.append(Image.open(io.BytesIO(frame[8:])).convert("RGB"))

    def wait_for(self, condition: Callable[[EventStream], bool], timeout: float = 60) -> None:
        """Wait until the condition holds for what has arrived. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                kinds = [message["type"] for message in self.messages]
                raise TimeoutError(f"not seen within {timeout:.0f} s; the messages were {kinds}")

    def of(self, prompt_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        """The data of the messages of one prompt, of one kind ("progress", "executed", …) or of all."""
        return [
            message["data"]
            for message in list(self.messages)
            if message["data"].get("prompt_id") == prompt_id and kind in (None, message["type"])
        ]

    def wait_until_finished(self, prompt_id: str, timeout: float = 120) -> None:
        """Wait for the message that the prompt succeeded, failed or was interrupted."""
        final = {"execution_success", "execution_error", "execution_interrupted"}

        def finished(stream: EventStream) -> bool:
            return any(m["type"] in final and m["data"].get("prompt_id") == prompt_id for m in stream.messages)

        self.wait_for(finished, timeout)
