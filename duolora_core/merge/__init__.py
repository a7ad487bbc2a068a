"""The method (DuoLoRA, arXiv 2504.13206): two LoRAs side by side behind gates, trained so that the sum keeps both.

The files in reading order:

- what is merged: `stack` (both LoRAs of every layer), `roles` (which blocks carry content, which style), `gates`
- what is minimised: `config`, `losses` (the whole objective), `teachers` (the targets of each step)
- how: `stacked` (a layer's factors ready to multiply), `gated` (the LoRAs on a model, behind gates), `trainer`,
  `workload` (its memory)
- what comes out: `merged`, `block_weights`, `masks_file`
- what is known of it: `statistics`, `overlap`
"""
