"""What a prior's networks take of a GPU's memory, counted from its configs alone."""
