"""What nodes have done for them: one training, merge or comparison from start to end; it knows MODEL, CLIP and VAE.

The files in reading order: `options`, `loaded_lora` and `lora_stack` (what comes in), `pair`, `merge_inputs` and
`training_inputs` (pictures and prompts), `merge`, `baseline`, `train_lora` (the runs), `trained_gates` (the last ones are
remembered), `checkpoint`, `merge_checkpoint`, `lora_checkpoint` (resuming them), `preview_sampling` and `progress` (what
is seen meanwhile), `merge_result`, `trained_loras`, `apply` and `report` (what comes out).
"""
