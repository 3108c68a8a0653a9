"""Results read, looked at and judged; never part of a key."""
