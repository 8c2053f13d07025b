"""The shape of an image."""

ImageShape = tuple[int, int, int]
"""(C, H, W)."""
