"""A training that can be resumed, in a file that is only ever read by whoever would write the same.

The files in reading order: `file` (one format for all of them), `gates` (where the training of a merge stands),
`merge_file` (that in a file). What LoRAs in training add is in `train_lora.checkpoint` and
`train_lora.checkpoint_file`.
"""
