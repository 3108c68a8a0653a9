"""Kernels in Warp for CPU and GPU, behind functions on tensors; nothing else imports it."""
