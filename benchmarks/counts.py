"""What a training step of a cfg does, in numbers that do not drift: operations, mixed layouts, bytes kept.

    python -m benchmarks.counts [CFG] [--batch-size 2] [--precision float32]

Forward and backward on the CPU. An operation has mixed layouts if of the maps that it reads and writes at least one is
channels-last and another channels-first: it cannot run along memory, and takes three to five times the time.
"""

import argparse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lvae_torch.data.shapes import ImageShape
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.hparams import load
from lvae_torch.info import shape_of_data
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample


@dataclass
class Counts:
    """Of one step."""

    operations: int = 0
    elements: int = 0
    """Of the largest map of each operation on maps."""
    mixed: Counter[str] = field(default_factory=Counter)
    """Elements of the operations with mixed layouts, by name."""
    mixed_operations: int = 0
    kept: int = 0
    """Bytes that the backward pass keeps, each storage once, weights and images not counted."""

    @property
    def mixed_share(self) -> float:
        return sum(self.mixed.values()) / max(1, self.elements)


class _Operations(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.counts.operations += 1
        maps = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor) and t.dim() == 4 and t.numel()]
        if func.is_view or not maps:
            return out
        largest = max(t.numel() for t in maps)
        self.counts.elements += largest
        if len({layout for t in maps if (layout := layout_of(t)) is not None}) > 1:
            self.counts.mixed[str(func)] += largest
            self.counts.mixed_operations += 1
        return out


def layout_of(x: Tensor) -> torch.memory_format | None:
    """The layout of a map, (B, C, H, W); None where it has no meaning, as for one channel or one pixel, or no map."""
    if x.shape[1] == 1 or x.shape[2] * x.shape[3] == 1 or 0 in x.stride():
        return None
    across, along = x.stride(1), min(x.stride(2), x.stride(3))
    return torch.channels_last if across < along else torch.contiguous_format


def counts_of_step(model: Model, x: Tensor, precision: str = "float32") -> Counts:
    """Count forward and backward of ``model`` on images x, (B, C, H, W)."""
    counts, kept = Counts(), {}
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), x)}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with _Operations(counts):
        with half, saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = elbo_terms(x, model(x, posterior_sample)).nelbo.mean()
        counts.kept = sum(n_bytes for key, n_bytes in kept.items() if key not in known)
        loss.backward()  # type: ignore[no-untyped-call]
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="?", default=Path("egs/spatial_lvae/static_mnist_3.cfg"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    settings = load(options.cfg, ["data.dumps=nowhere"])
    shape, n_levels = shape_of_data(settings)
    model = settings.model.build(shape, n_levels).to(memory_format=torch.channels_last).train()
    report(options, counts_of_step(model, images(options.batch_size, shape, n_levels), options.precision))


def images(n: int, shape: ImageShape, n_levels: int) -> Tensor:
    """Random ones, as training gives them to a model."""
    x = torch.randint(n_levels, (n, *shape)).float() / max(1, n_levels - 1)
    return x.to(memory_format=torch.channels_last)


def report(options: argparse.Namespace, counts: Counts) -> None:
    print(f"{options.cfg.stem}, batch {options.batch_size}, {options.precision}: forward and backward")
    print(f"  operations         {counts.operations:,}")
    print(f"  kept for backward  {counts.kept / 2**20 / options.batch_size:.1f} MiB an image")
    print(f"  mixed layouts      {counts.mixed_operations} operations, {counts.mixed_share:.2%} of the elements")
    for name, elements in counts.mixed.most_common(12):
        print(f"    {name:<50} {elements:,}")


if __name__ == "__main__":
    main()
