"""What the diffusion priors share: latent space, noise schedule and sampling."""
