"""Renderers: from fields and meshes to pictures."""
