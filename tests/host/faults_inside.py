"""Runs inside a host's python: lets graphs fail at every stage, and says after each what was left behind, as JSON.

python faults_inside.py --host PATH --base PATH --job FILE

FILE holds {"graphs": {name: API graph}, "paint": API graph, "count": faults, "seed": int, "share": [i, n]}. The last
line of the output is {"injected": n, "failures": [...], "stages": {...}, "kinds": {...}, "pictures": [...]}.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import host_state  # beside this file, which is a script
import inside_host
from fault_sites import GIVEN, NON_FINITE, SITES, USE, Site, combinations
from graphs import Graph
from in_process import InProcess, Outcome, picture
from injection import INJECTED, Fault, counted, injected

MOST_TOLD = 20_000
"""Characters that a failed node's inputs may take in the message to the page."""


class Keep:
    """A node that keeps what the loaders gave, so that the test can look at it."""

    kept: tuple[Any, Any, Any] | None = None
    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    CATEGORY = "DuoLoRA/test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}}

    def keep(self, model: Any, clip: Any, vae: Any) -> tuple[()]:
        Keep.kept = model, clip, vae
        return ()


def main() -> None:
    wanted = inside_host.entered("base", "job")
    job = json.loads(wanted.job.read_text(encoding="utf-8"))
    import comfy.cli_args

    comfy.cli_args.args.base_directory = str(wanted.base)
    inside_host.tell(Run(wanted.base, job).all())


class Run:
    """All faults of one process."""

    def __init__(self, base: Path, job: dict[str, Any]):
        self.loras = base / "models" / "loras"
        self.graphs: dict[str, Graph] = job["graphs"]
        self.paint: Graph = job["paint"]
        self.job = job
        self.random = random.Random(job["seed"])
        self.executor = InProcess()
        self.executor.add_node("Keep", Keep)

    def all(self) -> dict[str, Any]:
        """Injects the faults, one after the other, and paints in between."""
        pictures = [self.painted(0)]
        failures: list[str] = []
        done: list[Fault] = []
        if self.job["count"]:
            self.look_at_models()
            for i, fault in enumerate(self.choose()):
                started = time.monotonic()
                told = self.inject(fault)
                failures += [f"{fault}: {each}" for each in told]
                done.append(fault)
                sys.stderr.write(f"{i} {time.monotonic() - started:.1f} s {fault}: {told[:4] or 'ok'}\n")
                if i % self.job["paint_every"] == 0:
                    pictures.append(self.painted(len(pictures)))
        pictures += [self.painted(i) for i in range(len(pictures), self.job["pictures"])]
        return {
            "injected": len(done),
            "failures": failures,
            "stages": Counter(fault.site.stage for fault in done),
            "kinds": Counter(fault.kind for fault in done),
            "pictures": pictures,
        }

    def look_at_models(self) -> None:
        """Runs every graph once without a fault, so that the host has loaded what it loads, and takes down the state.

        Counts how often each site is called on the way.
        """
        self.calls: dict[tuple[Site, str], int] = {}
        for name, graph in self.graphs.items():
            sites = [site for site in (*SITES, *NON_FINITE) if name in site.graphs]
            self.rest()
            with counted(sites) as counters:
                outcome = self.executor.run(graph)
            if outcome.status != "success":
                raise RuntimeError(f"graph '{name}' fails without a fault: {outcome.message}")
            self.calls |= {(site, name): next(counter) for site, counter in counters.items()}
        missed = sorted(f"{site.target} in '{name}'" for (site, name), count in self.calls.items() if not count)
        if missed:
            raise RuntimeError(f"never called: {', '.join(missed)}")
        self.rest()
        model, clip, vae = self.models()
        self.networks = {"UNet": model.model, "CLIP": clip.cond_stage_model, "VAE": vae.first_stage_model}
        self.before = self.state()
        self.bits = {name: host_state.Bits(network) for name, network in self.networks.items()}
        gc.collect()
        gc.freeze()  # all that there is now stays; the many collections to come need not look at it

    def choose(self) -> list[Fault]:
        """This process's share of all combinations, each at a random call."""
        mine, processes = self.job["share"]
        chosen = combinations(self.job["seed"])[mine::processes][: self.job["count"]]
        return [Fault(*each, self.random.randint(1, self.calls[each[0], each[1]])) for each in chosen]

    def inject(self, fault: Fault) -> list[str]:
        """What is wrong after one fault; nothing, if all is well."""
        graph = self.varied(self.graphs[fault.graph])
        draws = fault.graph == USE  # the host's own sampler and picture nodes draw random numbers
        files, process = self.files(), host_state.process_state(with_random_numbers=not draws)
        with injected(fault) as fired:
            outcome = self.executor.run(graph)
        told = self.judge(fault, outcome, next(fired) > 0)
        told += host_state.differences(process, host_state.process_state(with_random_numbers=not draws))
        told += [f"{name} {each}" for name, each in self.left_on_modules()]
        for saved in self.files() - files:
            # Of the two fsyncs of a save the second is the folder's, when the whole file has its name.
            named = fault.site.target == "os:fsync" and fault.call % 2 == 0
            refused = fault.site.stage == "save" and fault.kind != "cancel" and not named
            if refused or not self.is_whole(saved):
                told.append(f"file left: {saved}")
            (self.loras / saved).unlink()
        self.rest()
        told += [f"open: {path}" for path in host_state.open_files(self.loras)]
        told += host_state.differences(self.before, self.state())
        for name, bits in self.bits.items():
            told += [f"{name} {tensor}: its bits changed" for tensor in bits.changed()]
        return told

    def is_whole(self, name: str) -> bool:
        """Whether a file is one that Save Merged LoRA has finished, a LoRA or masks."""
        from safetensors.torch import load_file

        ours = re.fullmatch(r"(faults/saved_\d{5}|kept_\d{5}\.masks)\.safetensors", name)
        return ours is not None and bool(load_file(self.loras / name))

    def judge(self, fault: Fault, outcome: Outcome, fired: bool) -> list[str]:
        """Whether the prompt ended as such a fault must end it."""
        if not fired:
            return ["the fault did not happen"]
        size = len(json.dumps(outcome.inputs))
        if size > MOST_TOLD:
            return [f"{outcome.node_type} told the page {size} characters of its inputs"]
        said = f"{outcome.status} {outcome.message}"
        if fault.kind == "interrupt" and outcome.status != "interrupted":
            return [f"the interrupt was swallowed: {said}"]
        if fault.kind == "error" and not (outcome.status == "error" and INJECTED in outcome.message):
            return [f"the error was swallowed: {said}"]
        if fault.kind == "non-finite":
            # From its second step on a training hands out what it has reached, and says why in `info`.
            info = str(outcome.outputs.get("info", ""))
            raised = any(f"{name}Error" in outcome.message for name in ("NotFinite", "Training"))
            told = raised or "is not a finite" in info
            return [] if told else [f"the overflow was not told: {said}"]
        # The graph with given pictures is set to the smallest plan that there is.
        steps_down = fault.site.stage in ("teacher forward", "student forward", "backward") and fault.graph != GIVEN
        if fault.kind == "out of memory once" and steps_down and outcome.status != "success":
            return [f"no smaller plan was tried: {said}"]
        return []

    def state(self) -> dict[str, Any]:
        """All of it, once the host has loaded the model without any LoRA."""
        import comfy.model_management
        import torch

        model, clip, vae = self.models()
        with torch.inference_mode():
            comfy.model_management.load_models_gpu([model, clip.patcher, vae.patcher])
        found: dict[str, Any] = {}
        for name, patcher in (("UNet", model), ("CLIP", clip.patcher), ("VAE", vae.patcher)):
            of = host_state.patcher_state(patcher)
            of |= host_state.module_state(self.networks[name]) | host_state.tensor_state(self.networks[name], False)
            found |= {f"{name} {key}": value for key, value in of.items()}
        return found

    def left_on_modules(self) -> list[tuple[str, str]]:
        """Hooks, replaced forwards and gradients as they are right after the prompt, before the host does anything."""
        found: list[tuple[str, str]] = []
        for network_name, network in self.networks.items():
            for name, module in network.named_modules():
                hooks = [key for key, value in vars(module).items() if key.endswith("hooks") and value]
                found += [(network_name, f"{name} has {key}") for key in hooks]
                if "forward" in vars(module):
                    found.append((network_name, f"{name} has a forward of its own"))
                if module.training != self.before[f"{network_name} {name} module"][1]:
                    found.append((network_name, f"{name} changed its training flag"))
            for name, tensor in host_state.named_tensors(network):
                if tensor.requires_grad != self.before[f"{network_name} {name}"][3] or tensor.grad is not None:
                    found.append((network_name, f"{name} requires a gradient or has one"))
                if tensor.is_inference() != self.before[f"{network_name} {name}"][5]:
                    found.append((network_name, f"{name} is an alias"))
        return found

    def rest(self) -> None:
        """A graph of the loaders alone: the host drops what it has kept of all other nodes."""
        outcome = self.executor.run({name: self.paint[name] for name in ("checkpoint", "clip", "keep")})
        if outcome.status != "success":
            raise RuntimeError(outcome.message)
        gc.collect()

    def models(self) -> tuple[Any, Any, Any]:
        if Keep.kept is None:
            raise RuntimeError("nothing is loaded")
        return Keep.kept

    def painted(self, seed: int) -> str:
        """The pixels' SHA-256 of a picture without any LoRA."""
        graph = dict(self.paint)
        graph["sampler"] = {**graph["sampler"], "inputs": {**graph["sampler"]["inputs"], "seed": seed}}
        outcome = self.executor.run(graph)
        if outcome.status != "success":
            return outcome.message
        return hashlib.sha256(picture(outcome, "save").tobytes()).hexdigest()

    def varied(self, graph: Graph) -> Graph:
        """The graph with other seeds, so that faults meet other noise and timesteps."""
        seed = self.random.randrange(2**32)
        return {
            name: {**each, "inputs": {**each["inputs"], **({"seed": seed} if "seed" in each["inputs"] else {})}}
            for name, each in graph.items()
        }

    def files(self) -> set[str]:
        return {path.relative_to(self.loras).as_posix() for path in self.loras.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
