"""Training data: 3D models read from a furniture package, their captions, the split, renders and relit batches."""
