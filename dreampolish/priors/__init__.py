"""Frozen diffusion priors behind small protocols; the only importers of diffusers, transformers and peft."""
