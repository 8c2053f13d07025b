"""[data]: dumps, their order, and what the device makes of their bytes.

lvae_torch.data.write_dump("mine", {"train": images, "test": (test_images, test_labels)})
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvae_torch.data.making import write_dump

__all__ = ["write_dump"]


def __getattr__(name: str) -> Any:
    """Import the call only when it is used: the cfg's section lies in this room, and need not wait for PyTorch."""
    if name == "write_dump":
        from lvae_torch.data.making import write_dump

        return write_dump
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
