"""Making a run, checking its input, exporting its asset."""
