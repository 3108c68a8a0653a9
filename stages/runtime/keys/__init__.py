"""Keys: what a result depends on, its code included."""
