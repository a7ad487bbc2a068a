"""Everything that touches ComfyUI: only files in this folder import `comfy` or `folder_paths`.

- `weights`: a model's weights made usable for a backward pass, and given back untouched
- `base_weights`: the weights of a checkpoint as they are without patches
- `decomposition`: where adapters that are no plain LoRA become one
- `casts`: weights stored in another dtype, converted for each use and held for none
- `gradient_checkpointing`: gradient checkpointing of the UNet's blocks
- `memory`: what is free on the device, and loading a model there whole
- `attention`, `matmul`: kernels that have a backward pass, in place of faster ones that have none
- `precision`: the arithmetic of a training
- `denoiser`: a loaded model as the engine's `Denoiser`
- `prompts`: prompts encoded with a LoRA's own text encoder part
- `pictures`: training latents, from pictures or sampled from base + LoRA
- `preview`: a latent as a small picture
- `files`: LoRA files found and saved under the configured folders
- `models`: a folded LoRA applied to MODEL and CLIP
- `vision`: pictures and prompts as embeddings, for scores
- `progress`: progress bar, preview and Cancel
- `identity`: what makes a MODEL, CLIP or VAE the one it is
- `outputs`: an output that has no value in this run
"""
