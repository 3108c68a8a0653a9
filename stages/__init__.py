"""Tasks: one file a stage, plus the store they meet in. Stages never import each other."""
