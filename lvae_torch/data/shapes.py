"""The shape of an image."""

ImageShape = tuple[int, int, int]
"""(C, H, W)."""
POINT: ImageShape = (2, 1, 1)
"""Of a point of the plane."""
