"""What others do with a content and a style LoRA, to compare with: two LoRAs in, one LoRA out.

The files in reading order: `training_free` (stack, average, NP-LoRA, block split), `core_space` (TIES and DARE
without ΔW), `zip_lora` (masks over channels, trained).
"""
