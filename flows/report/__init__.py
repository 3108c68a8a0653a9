"""The report: one self-contained HTML page of a run, or of several side by side, and the gallery's pictures."""
