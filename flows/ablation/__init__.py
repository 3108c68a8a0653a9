"""Flow `ablation`: studies, that is, the same subjects and seeds under several settings."""
