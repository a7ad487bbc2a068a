"""What a LoRA is: read from any common format, matched to a model's layers, saved as an ordinary file.

The files in reading order: `low_rank` (ΔW = up · down), `keys` (how trainers spell layers), `architecture` (made for
which family), `parallel_layers`, `read`, `match` (to a model's layers), `folded` (an ordinary LoRA), `metadata`,
`save`.
"""
