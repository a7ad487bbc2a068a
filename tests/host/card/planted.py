"""Mistakes of the kinds that a pretended card must find, each planted for one flow."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def planted(name: str) -> Generator[None, None, None]:
    yield
