"""The joint prior: six views of one object denoised together."""
