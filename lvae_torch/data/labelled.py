"""Images with their classes, as they travel together."""

from dataclasses import dataclass

from torch import Tensor, device


@dataclass(frozen=True)
class Labelled:
    """A batch: raw images (b, H, W, C) of a dump, or x (b, C, H, W), and the class of each."""

    images: Tensor
    labels: Tensor | None = None  # int64 (b,); None for an unconditional model

    def __len__(self) -> int:
        return len(self.images)

    def pinned(self) -> "Labelled":
        """The batch in memory from which a GPU reads by itself."""
        return Labelled(self.images.pin_memory(), None if self.labels is None else self.labels.pin_memory())

    def to(self, place: device) -> "Labelled":
        """The batch on a device; the host does not wait for what is pinned."""
        labels = None if self.labels is None else self.labels.to(place, non_blocking=True)
        return Labelled(self.images.to(place, non_blocking=True), labels)

    def at(self, indices: Tensor) -> "Labelled":
        """The images at ``indices`` of this batch."""
        return Labelled(self.images[indices], None if self.labels is None else self.labels[indices])

    def chunk(self, parts: int) -> "list[Labelled]":
        """As ``Tensor.chunk``."""
        return self._zipped(self.images.chunk(parts), None if self.labels is None else self.labels.chunk(parts))

    def split(self, size: int) -> "list[Labelled]":
        """As ``Tensor.split``."""
        return self._zipped(self.images.split(size), None if self.labels is None else self.labels.split(size))

    @staticmethod
    def _zipped(images: tuple[Tensor, ...], labels: tuple[Tensor, ...] | None) -> "list[Labelled]":
        return [Labelled(*pair) for pair in zip(images, labels or [None] * len(images), strict=True)]
