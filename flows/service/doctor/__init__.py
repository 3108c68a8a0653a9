"""What is wrong with an installation, its store and its services."""
