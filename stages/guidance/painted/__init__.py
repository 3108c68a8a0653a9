"""Views that a prior paints: who paints them, and how they teach a field or a mesh."""
