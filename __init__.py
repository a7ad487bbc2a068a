"""DuoLoRA for ComfyUI: merge a content LoRA and a style LoRA of the SDXL family into one that keeps both."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"
"""What ComfyUI serves of ours: `web/docs/<node id>.md` is the help page of a node."""

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
