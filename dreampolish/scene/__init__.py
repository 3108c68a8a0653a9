"""Cameras, pictures, light and shading."""
