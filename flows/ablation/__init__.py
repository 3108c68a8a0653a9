"""Flow `ablation`: studies."""
