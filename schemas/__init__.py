"""Contracts: settings, artifacts, run records. Pydantic only; nothing here imports torch."""
