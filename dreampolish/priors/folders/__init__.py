"""A prior's folder: where it lies, what its files hold, what is missing, how a pickle becomes one."""
