"""Padding to a multiple of a factor, and cropping back; an odd row or column goes to the bottom or right."""

from torch import Tensor
from torch.nn.functional import pad

Size = tuple[int, int]  # (height, width)


def padded_size(size: Size, factor: int) -> Size:
    """Height and width, each rounded up to a multiple of ``factor``."""
    return -(-size[0] // factor) * factor, -(-size[1] // factor) * factor


def pad_to(x: Tensor, size: Size) -> Tensor:
    """Pad x, (B, C, H, W), with zeros on all sides to ``size``."""
    extra_rows, extra_columns = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if extra_rows == extra_columns == 0:
        return x
    top, left = extra_rows // 2, extra_columns // 2
    return pad(x, (left, extra_columns - left, top, extra_rows - top))


def crop_to(x: Tensor, size: Size) -> Tensor:
    """Crop x, (B, C, H, W), to its middle of ``size``; undoes ``pad_to``.

    It pads by less than nothing: the gradient of a slice is laid out channels-first whatever x is, and with it the
    gradients of all blocks before, where mixed layouts cost three to five times the time.
    """
    extra_rows, extra_columns = x.shape[-2] - size[0], x.shape[-1] - size[1]
    if extra_rows == extra_columns == 0:
        return x
    top, left = extra_rows // 2, extra_columns // 2
    return pad(x, (-left, left - extra_columns, -top, top - extra_rows))
