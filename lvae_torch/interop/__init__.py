"""Translates settings and weights of other programs."""
