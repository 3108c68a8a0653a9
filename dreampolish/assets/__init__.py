"""Textured meshes and their files."""
