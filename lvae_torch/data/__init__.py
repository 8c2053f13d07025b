"""Images in: dumps, their order, and what turns their bytes into x."""

from lvae_torch.data.making import write_dump

__all__ = ["write_dump"]
