"""Flow `benchmark`: every stage compared with true objects."""
