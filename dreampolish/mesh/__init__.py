"""Meshes: tetrahedral grids, marching, topology, unwrapping, baking and glTF."""
