"""Models with one latent vector: the VAE, and the VLAE, whose prior is an autoregressive flow."""
