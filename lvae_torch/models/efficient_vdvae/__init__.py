"""Efficient-VDVAE (Hazami et al. 2022)."""
