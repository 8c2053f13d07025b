"""Discrete codes: the VQ-VAE and its quantizers."""
