"""The fully-connected Ladder VAE, and the hierarchical VAE that its paper compares it with."""
