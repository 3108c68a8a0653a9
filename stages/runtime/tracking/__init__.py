"""What a run says of itself while it goes: a journal on disk, MLflow, Prefect and the terminal."""
