"""The training loop, its checkpoints, its optimiser and the regularisers."""
