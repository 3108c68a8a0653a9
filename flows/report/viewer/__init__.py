"""The 3D view inside a page."""
