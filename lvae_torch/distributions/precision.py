"""Keeps half precision out of log probabilities, which are small differences of large numbers."""

import torch
from torch import Tensor


def widened(params: Tensor) -> Tensor:
    """``params`` in float32 if they are in half precision, else unchanged."""
    return params.float() if params.dtype in (torch.float16, torch.bfloat16) else params
