"""What the nodes look like: sockets, schemas, widgets and outputs that several nodes have in common.

The files in reading order: `schema`, `sockets`, `widgets`, `trained_outputs`, `images` (IMAGE and Pillow).
"""
