"""What a training needs in memory, and the plan that fits it into what is free.

The files in reading order: `activations` (what one sample leaves behind, from the layer table), `estimate` (everything
together, and the plans that need less), `planner` (the plan in force, and the step down when memory runs out).
"""
