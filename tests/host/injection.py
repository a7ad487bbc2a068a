"""Lets a function of a running host raise at one of its calls, or counts its calls."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from fault_sites import Kind, Site  # beside the script that runs

INJECTED = "injected fault"


@dataclass(frozen=True)
class Fault:
    """One fault: at which call of a site in a graph, and what happens then."""

    site: Site
    graph: str
    kind: Kind
    call: int

    def __str__(self) -> str:
        where = f"{self.site.when} {self.site.target}"
        return f"{self.site.stage}: {self.kind} {where}, call {self.call} of graph '{self.graph}'"


def resolve(target: str) -> tuple[Any, str]:
    """Where the function of a target is held, and under what name."""
    *pack, module, name = target.split(":")
    if pack:
        (holder,) = [each for key, each in sys.modules.items() if key.endswith(f"ComfyUI-DuoLoRA.{module}")]
    else:
        holder = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    return holder, name


@contextmanager
def replaced(target: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Generator[None, None, None]:
    """Puts make(function) in the place of a function."""
    holder, name = resolve(target)
    inherited = name not in vars(holder)
    original = getattr(holder, name) if inherited else vars(holder)[name]
    setattr(holder, name, make(original))
    try:
        yield
    finally:
        if inherited:
            delattr(holder, name)
        else:
            setattr(holder, name, original)


def counts(site: Site) -> bool:
    """Whether a call now is one of the site's."""
    import torch

    enabled = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    return site.grad is None or site.grad == enabled


@contextmanager
def counted(sites: Sequence[Site]) -> Generator[dict[Site, Any], None, None]:
    """How often each site is called: the counters' next values."""
    counters: dict[Site, Any] = {site: itertools.count() for site in sites}
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(replaced(site.target, counting(site, counters[site])))
        yield counters


def counting(site: Site, counter: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            mine = counts(site)
            result = original(*args, **kwargs)
            if mine and (site.when != "in backward" or result.requires_grad):
                next(counter)
            return result

        return run

    return make


@contextmanager
def injected(fault: Fault) -> Generator[Any, None, None]:
    """Lets the fault happen inside; yields a counter of how often it has."""
    calls, fired = itertools.count(1), itertools.count()
    site = fault.site

    def due() -> bool:
        call = next(calls)
        hit = call >= fault.call if fault.kind == "out of memory" else call == fault.call
        if hit:
            next(fired)
        return hit

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            mine = counts(site)
            if site.when == "before":
                if mine and due():
                    happen(fault.kind)
                return original(*args, **kwargs)
            result = original(*args, **kwargs)
            if site.when == "after":
                if mine and due():
                    return result * float("inf") if fault.kind == "non-finite" else happen(fault.kind) or result
            elif mine and result.requires_grad and due():
                result.register_hook(lambda _: happen(fault.kind))
            return result

        return run

    with replaced(site.target, make):
        yield fired


def happen(kind: Kind) -> None:
    """The fault itself."""
    import comfy.model_management
    import torch

    if kind == "cancel":
        comfy.model_management.interrupt_current_processing()
    elif kind == "interrupt":
        raise comfy.model_management.InterruptProcessingException()
    elif kind == "error":
        raise RuntimeError(INJECTED)
    else:
        raise torch.OutOfMemoryError("injected: the device ran out of memory")
