"""Servers and worker of this machine."""
