"""SDXL at its real size inside a real ComfyUI: one merge from the checkpoint to the saved file, and what it needs."""
