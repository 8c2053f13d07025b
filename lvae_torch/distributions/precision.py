"""Log probabilities are small differences of large numbers: never computed in half precision."""

import torch
from torch import Tensor


def widened(params: Tensor) -> Tensor:
    """``params`` in float32 if they come from a half-precision network, else as they are."""
    return params.float() if params.dtype in (torch.float16, torch.bfloat16) else params
