"""Prefect, MLflow and the worker of this machine: start, stop, diagnose."""
