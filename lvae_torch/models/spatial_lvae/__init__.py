"""The convolutional Ladder VAE (addtt/ladder-vae-pytorch)."""
