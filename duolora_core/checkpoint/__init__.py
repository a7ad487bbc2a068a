"""A training that can be resumed: where it stands, in a file that is only read by whoever would write the same.

The files in reading order: `state` (the one checkpoint of every training: capture, restore), `file` (written, read).
"""
