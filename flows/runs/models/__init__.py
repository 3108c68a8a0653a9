"""Models that runs use: the list of the hub, downloads, and folders that were found sound before."""
