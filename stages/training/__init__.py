"""The priors' trainings as tasks."""
