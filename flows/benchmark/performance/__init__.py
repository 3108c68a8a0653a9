"""How fast the engine is beside other ways of doing the same, and what a run's time goes into."""
