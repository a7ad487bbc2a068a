"""ComfyUI's page in a browser: load a graph, press its buttons, read what it shows. One class for all frontends."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, expect

from browser.page_problems import PageProblems
from host.comfy_host import ComfyServer
from host.graphs import Graph

Workflow = dict[str, Any]
"""A graph as the page saves it: nodes with places, links, groups."""


class ComfyPage:
    """A page on a running server."""

    def __init__(self, page: Page, server: ComfyServer) -> None:
        self.page, self.server = page, server
        page.set_default_timeout(30_000)
        self.problems = PageProblems(page)

    def open(self) -> ComfyPage:
        """Load the page and wait until its own first graph stands."""
        self.page.goto(f"http://{self.server.address}/")
        self.page.wait_for_function("window.app?.graph && app.graph.nodes.length && app.vueAppReady")
        self.page.wait_for_load_state("networkidle")
        self.problems.forget()
        return self

    def load(self, workflow: Workflow, name: str = "workflow") -> None:
        """Show a saved workflow as the only one on the canvas."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [workflow, name])
        self._redrawn()

    def load_api(self, graph: Graph, name: str = "graph") -> None:
        """Show an API graph; the page lays it out."""
        self.page.evaluate("([graph, name]) => app.loadApiJson(graph, name)", [graph, name])
        self._redrawn()

    def prompt(self) -> Graph:
        """What Run would send, without titles."""
        graph: Graph = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return {
            key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in sorted(graph.items())
        }

    def saved(self) -> Workflow:
        """What Save would write."""
        workflow: Workflow = self.page.evaluate("async () => (await app.graphToPrompt()).workflow")
        return workflow

    def unknown_nodes(self) -> list[str]:
        """The types of all nodes on the canvas that the page does not know."""
        known = "type => type in LiteGraph.registered_node_types"
        return self.page.evaluate(f"app.graph.nodes.map(node => node.type).filter(type => !({known})(type))")

    def set_inputs(self, graph: Graph) -> None:
        """Give the widgets on the canvas the values that an API graph of the same nodes has."""
        self.page.evaluate(
            """graph => {
                for (const [id, {inputs}] of Object.entries(graph))
                    for (const widget of app.graph.getNodeById(id).widgets ?? [])
                        if (widget.name in inputs && !Array.isArray(inputs[widget.name]))
                            widget.value = inputs[widget.name]
            }""",
            graph,
        )
        self._redrawn()

    def node_of(self, node_type: str) -> str:
        """The id of the first node of a type."""
        return str(self.page.evaluate("type => app.graph.nodes.find(node => node.type == type).id", node_type))

    def run(self) -> str:
        """Press Run; returns the prompt id that the server gave."""
        with self.page.expect_response(re.compile(r"/api/prompt$")) as answered:
            self.page.get_by_role("button", name="Run", exact=True).first.click()
        answer: dict[str, Any] = answered.value.json()
        assert not answer.get("node_errors"), answer
        return str(answer["prompt_id"])

    def cancel(self) -> None:
        """Press Cancel."""
        self.page.get_by_role("button", name="Cancel current run").first.click()

    def wait_for_preview(self, node_id: str) -> None:
        """Until a live picture stands on the node."""
        self.page.wait_for_function("id => app.nodePreviewImages?.[id]?.length", arg=node_id)
        self.page.wait_for_function("id => app.graph.getNodeById(id).imgs?.[0]?.naturalWidth", arg=node_id)
        self._redrawn()

    def wait_for_step(self, node_id: str, step: int, steps: int) -> None:
        """Until a node that takes this many steps has come to this one, and its live picture is there."""
        self.page.evaluate("app.api.addEventListener('progress', event => window.progressSeen = event.detail)")
        reached = "([step, steps]) => { const p = window.progressSeen; return p?.max == steps && p.value >= step }"
        self.page.wait_for_function(reached, arg=[step, steps], timeout=600_000)
        self.wait_for_preview(node_id)

    def show_area(self, area: tuple[float, float, float, float]) -> FloatRect:
        """Move a part of the graph (left, top, right, bottom) to the middle; returns where it is on the page."""
        x, y, width, height = self.page.evaluate(
            """([left, top, right, bottom]) => {
                const {ds, canvas} = app.canvas, at = canvas.getBoundingClientRect()
                ds.scale = 1
                ds.offset[0] = (canvas.clientWidth - left - right) / 2
                ds.offset[1] = (canvas.clientHeight - top - bottom) / 2
                return [at.x + left + ds.offset[0], at.y + top + ds.offset[1], right - left, bottom - top]
            }""",
            area,
        )
        self._redrawn()
        return {"x": x, "y": y, "width": width, "height": height}

    def select(self, node_id: str) -> None:
        """Select a node, as a click on its title does."""
        self.page.evaluate("id => app.canvas.selectNode(app.graph.getNodeById(id))", node_id)
        self._redrawn()

    def open_help(self, node_id: str) -> Locator:
        """Select a node and press Node Info; returns its help as the page shows it."""
        self.select(node_id)
        self.page.get_by_test_id("info-button").click()
        return self.page.locator(".node-help-content")

    def show_alone(self, node_type: str, width: int) -> str:
        """Empty the canvas and put one new node on it, at least this wide; returns its id."""
        node_id = self.page.evaluate(
            """([type, width]) => {
                const last = app.graph.last_node_id
                app.graph.clear()
                app.graph.last_node_id = last // the page keeps values by node id and name: no id is used twice
                const node = LiteGraph.createNode(type)
                node.size[0] = Math.max(node.size[0], width)
                app.graph.add(node)
                return node.id
            }""",
            [node_type, width],
        )
        self._redrawn()
        return str(node_id)

    def look_at(self, node_id: str, scale: float = 1.0) -> None:
        """Move the canvas so that the node stands in the middle."""
        self.page.evaluate(
            """([id, scale]) => {
                const [x, y, width, height] = app.graph.getNodeById(id).boundingRect, {ds, canvas} = app.canvas
                ds.scale = scale
                ds.offset[0] = canvas.clientWidth / 2 / scale - x - width / 2
                ds.offset[1] = canvas.clientHeight / 2 / scale - y - height / 2
            }""",
            [node_id, scale],
        )
        self._redrawn()

    def box(self, node_id: str, margin: int = 0) -> FloatRect:
        """Where a node is on the page, with its title, in CSS pixels."""
        x, y, width, height = self.page.evaluate(
            """id => {
                const [x, y, width, height] = app.graph.getNodeById(id).boundingRect, {ds, canvas} = app.canvas
                const at = canvas.getBoundingClientRect(), {scale, offset} = ds
                return [at.x + (x + offset[0]) * scale, at.y + (y + offset[1]) * scale, width * scale, height * scale]
            }""",
            node_id,
        )
        return {"x": x - margin, "y": y - margin, "width": width + 2 * margin, "height": height + 2 * margin}

    def picture(self, clip: FloatRect | None = None) -> Image.Image:
        """What the page shows, or a part of it."""
        return Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")

    def whiteness(self, node_id: str) -> float:
        """The share of white in what is seen of a node: the charts of a live picture stand on white."""
        pixels = np.asarray(self.picture(self.box(node_id)))
        return float((pixels.min(axis=2) > 240).mean())

    def labels(self, node_id: str) -> dict[str, Any]:
        """What is written on a node: {"title", "inputs", "outputs", "widgets"}."""
        return self.page.evaluate(
            """id => {
                const node = app.graph.getNodeById(id), label = each => each.label ?? each.localized_name ?? each.name
                const {title, inputs, outputs, widgets} = node
                return {title, inputs: inputs.map(label), outputs: outputs.map(label), widgets: widgets.map(label)}
            }""",
            node_id,
        )

    def hover_widget(self, node_id: str, widget: str) -> None:
        """Rest the mouse on a widget."""
        x, y = self.page.evaluate(
            """([id, name]) => {
                const node = app.graph.getNodeById(id), widget = node.widgets.find(each => each.name == name)
                const at = app.canvas.canvas.getBoundingClientRect(), {scale, offset} = app.canvas.ds
                const x = node.pos[0] + node.size[0] / 2, y = node.pos[1] + widget.last_y + 10
                return [at.x + (x + offset[0]) * scale, at.y + (y + offset[1]) * scale]
            }""",
            [node_id, widget],
        )
        self.page.mouse.move(x - 5, y)
        self.page.mouse.move(x, y)

    def set_language(self, language: str) -> None:
        """Switch the page's language, and load it anew."""
        with self.page.expect_response(re.compile(r"/api/settings/Comfy\.Locale$")):
            self.page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
        self.open()

    def wait_until_idle(self) -> None:
        """Until nothing runs or waits on the server, and the page says so."""
        self.page.wait_for_function(
            """async () => {
                const queue = await (await fetch('/api/queue')).json()
                return !queue.queue_running.length && !queue.queue_pending.length
            }"""
        )
        expect(self.page.get_by_role("button", name="Cancel current run").first).to_be_disabled()

    def _redrawn(self) -> None:
        self.page.evaluate(
            "() => new Promise(done => { app.canvas.setDirty(true, true); "
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))) })"
        )
