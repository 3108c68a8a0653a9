"""Textured meshes: unwrapping, baking, and files in GLB, OBJ, PLY, STL and USDZ."""
