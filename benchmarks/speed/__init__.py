"""Speed and memory: what a merge costs, counted and measured."""
