"""A run: made, checked, written out."""
