"""What must hold when something goes wrong: faults in every stage of a merge, many merges in one process."""
