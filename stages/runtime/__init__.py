"""How a stage runs: look up, lock, compute, publish."""
