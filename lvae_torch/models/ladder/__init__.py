"""The Ladder VAE paper's fully-connected model, and the hierarchical VAE it is compared with."""
