"""The method (DuoLoRA, arXiv 2504.13206): LoRAs side by side behind gates, trained so that the sum keeps all of them.

The files in reading order:

- what is merged: `stack` (all LoRAs of every layer), `roles` (which blocks carry content, which style), `gates`
- what is minimised: `config`, `losses` (the whole objective), `teachers` (the targets of each step)
- how: `stacked` (a layer's factors ready to multiply), `gated` (the LoRAs on a model, behind gates), `router` (the
  start of more than two LoRAs), `trainer`, `workload` (its memory)
- what comes out: `merged`, `block_weights`, `masks_file`
- what is known of it: `statistics`, `overlap`
"""
