"""What a training needs in memory, and the plan that fits it into what is free.

The files in reading order: `attention` (what scores take where no fused kernel computes them), `activations` (what one
sample leaves behind, from the layer table), `needs` (everything together, and the plans that need less),
`out_of_memory` (the names of a full memory), `plans` (the plan in force, and the step down when memory runs out).
"""
