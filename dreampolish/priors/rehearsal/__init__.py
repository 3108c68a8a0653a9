"""Folders of real architectures without their weights, to count memory by and to rehearse a run with."""
