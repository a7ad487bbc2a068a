"""What a merge costs: arithmetic, memory and time."""
