"""What a LoRA is: read from any common format, matched to a model's layers, saved as an ordinary file.

The files in reading order:

- the maths: `low_rank` (ΔW = up · down), `adapters/` (the other kinds, and the nearest low-rank change to each)
- in: `keys` (how trainers spell layers and parts), `architecture` (made for which family), `adapter_parts` (parts put
  together), `scale` and `beside` (what metadata and neighbouring files say), `trigger_words` (and a prompt
  out of them), `parallel_layers`, `read`
- on a model: `match`, `offsets` (its 1-D changes)
- out: `folded` (an ordinary LoRA), `metadata`, `save`
"""
