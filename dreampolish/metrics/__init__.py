"""Metrics: pure functions of pictures and meshes."""
