"""Order: Prefect flows and the command line."""
