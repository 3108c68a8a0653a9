"""Flow `benchmark`: true objects."""
