"""How a stage runs: key, look-up, lock, seed, signals, publishing, tracking."""
