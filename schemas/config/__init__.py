"""Settings of a run; the only home of defaults."""
