"""The [data] section."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lvae_torch.cfg.section import Count, Int, PathText, Section
from lvae_torch.files import check_name


class DataSection(Section):
    """[data]: the images, and how they are preprocessed."""

    dataset: str
    """Name of the dump: a folder in dumps, which lvae data makes."""
    dumps: PathText = "dataset_dumps"
    """Folder that holds all dumps; ~ and $VARIABLES are replaced."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "test"
    """Split to evaluate on."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Grey to binary. dynamic: draw from Bernoulli(grey/255) each time (fixed in evaluation); threshold: cut at 1/2."""
    n_bits: Annotated[Int, Field(ge=1, le=8)] = 8
    """Keep this many bits of 8-bit pixels; 5 keeps 32 levels."""
    flip: bool = False
    """Mirror each training image left to right with probability 1/2."""
    dequantize: bool = False
    """Add uniform noise within each pixel level (fixed noise in evaluation); for likelihoods that are densities."""
    verify: bool = True
    """Compare the dump with its checksums at each start (about a second per GiB); False compares only file sizes."""
    on_device: bool = False
    """Keep the whole training split in the device's memory; fastest if it fits."""
    limit_train: Count = 0
    """Train on the first N images only; 0 uses all."""
    limit_val: Count = 0
    """Evaluate on N images spread evenly over the split; 0 uses all."""

    def problems(self) -> Iterator[str]:
        if self.dequantize and self.binarize != "none":
            yield "dequantize and binarize exclude each other; leave one out"

    @field_validator("dataset", "train_split", "val_split")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "it")
