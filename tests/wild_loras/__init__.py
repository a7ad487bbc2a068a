"""LoRA files as people have them: written by the trainers' own code, read by ours, compared with theirs and core's."""
