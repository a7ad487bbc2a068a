"""Strangers' files in, whole files out, whatever is in them; nothing here knows what a LoRA is.

The files in reading order. In: `tensor_header` (bounded, checked), `tensor_file`, `sanitize` (what a file says, made
fit to be shown), `file_hash`, `picture_batch` (pictures of other nodes). Out: `safetensors_bytes`, `safe_path` (where
to), `atomic_write` (whole or not at all).
"""
