"""Score distillation as one weighted sum of predictions."""
