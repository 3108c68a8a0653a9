"""Results that several machines share: a place that all reach, what goes there and comes from there, and who computes what."""
