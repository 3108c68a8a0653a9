"""The trainings of the embedded priors and of the judge as tasks."""
