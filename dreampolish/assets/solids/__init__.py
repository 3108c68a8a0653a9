"""Meshes as solids: signed distances to them, and bodies that can be printed."""
