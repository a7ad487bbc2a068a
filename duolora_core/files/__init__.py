"""Files of strangers and files of ours, whatever is in them; nothing here knows what a LoRA is.

The files in reading order. Reading: `tensor_header` (bounded, checked), `tensor_file`, `texts` (what a file says, made
fit to be shown), `content_hash`. Writing: `safetensors_bytes`, `save_name` (where to), `whole_file` (whole or not at
all).
"""
