"""DuoLoRA for ComfyUI: merge a content LoRA and a style LoRA of the SDXL family into one that keeps both."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
