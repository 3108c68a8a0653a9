"""Reading, rendering and scoring of results; not part of a stage's key."""
