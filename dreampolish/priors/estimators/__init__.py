"""Priors that say of a picture what its surface is like: normals and depth."""
