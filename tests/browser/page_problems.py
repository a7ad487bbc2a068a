"""What goes wrong in a page: console errors, exceptions, failed requests; without the frontend's own known ones."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Page, Request, Response

KNOWN = (
    # A help page is looked for in the page's language, in a folder, before the file that holds all languages.
    re.compile(r"/extensions/ComfyUI-DuoLoRA/docs/DuoLoRA\w+/(en|zh|ja)\.md\b"),
    # Beside an error the page looks for the node's author on the internet, which the server forbids it.
    re.compile(r"https://api\.comfy\.org/(comfy-nodes/|nodes\?)"),
    # The first graph of a new user names models; the page asks for their sizes, which the server forbids it.
    re.compile(r"https://huggingface\.co/Comfy-Org/z_image_turbo/"),
    # Leaving or reloading a page ends what it was still sending.
    re.compile(r"^request failed: .* net::ERR_ABORTED$"),
)


class PageProblems:
    """Collects them from now on.

    A frontend has troubles of its own while it starts (a missing user.css or favicon; its default graph names models
    that nobody has; 1.27.10 reads a setting too early), so call `forget` once it stands: ours are looked for in what it
    says about our files even then.
    """

    def __init__(self, page: Page) -> None:
        self._found: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._found.append(f"exception: {error.stack or error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    @property
    def found(self) -> list[str]:
        """Everything so far that is not known to be the frontend's own."""
        return [text for text in self._found if not any(known.search(text) for known in KNOWN)]

    def forget(self) -> None:
        """Drop what was found, but for what names our pack."""
        self._found = [text for text in self._found if "duolora" in text.lower()]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._found.append(f"console: {message.text} ({message.location['url']})")

    def _failed(self, request: Request) -> None:
        self._found.append(f"request failed: {request.method} {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self._found.append(f"status {response.status}: {response.url}")
