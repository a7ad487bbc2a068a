"""What nodes have done for them: one training, merge or comparison from start to end; it knows MODEL, CLIP and VAE.

The files in reading order:

- what comes in: `options`, `loaded_lora`, `lora_stack`, `load_lora`, `placed`, `first_checks`, `inputs`,
  `merge_pictures`, `examples`
- the runs: `merge`, `baseline`, `train_lora`; `trained_gates` remembers the last merges
- resuming them: `checkpoint`
- what is seen meanwhile: `preview_sampling`, `progress`
- what comes out: `merge_result`, `trained_loras`, `report`
"""
