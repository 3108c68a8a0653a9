"""Training data: 3D models of a furniture package, their captions, the split, renders and relit batches."""
