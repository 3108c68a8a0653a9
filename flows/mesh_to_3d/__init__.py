"""Flows that start from a shape that is there: an earlier run's, or a user's own mesh."""
