"""Which part of a picture becomes an image. Light to import, for dumps are made by many processes."""

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels."""


def middle(height: int, width: int, size: tuple[int, int]) -> Box:
    """The largest part in the middle that has the proportions of ``size``, (H, W); at least a pixel each way.

    Half a pixel is rounded as torchvision's CenterCrop does it.
    """
    scale = min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = round((height - h) / 2), round((width - w) / 2)
    return left, top, left + w, top + h
