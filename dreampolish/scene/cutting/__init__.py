"""Cutting the object out of a user's own picture."""
