"""Settings that several stages share."""
