"""The spatial LVAE, a convolutional Ladder VAE (addtt/ladder-vae-pytorch)."""
