"""What a diffusion model is to the engine: layers with names, a network that predicts noise, and memory.

The files in reading order: `layout` (blocks and layers), `layer_kinds`, `denoiser` (eps, v, targets), `hooks` (low-rank
changes on layers), `frozen_layer` (weights converted for each use), `branches` (the networks that one attached model
can be), `evaluate` (batched forwards and backwards), `loss_scale` (half precision), `sample` (a picture); and `memory`:
what a training needs, and how it is made to need less.
"""
