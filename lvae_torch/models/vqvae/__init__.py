"""Models with discrete codes: the VQ-VAE and its quantizers."""
