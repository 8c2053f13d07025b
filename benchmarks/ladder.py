"""A training step of the 5-rung Ladder VAE against its bare matrix products and activations, with Adam.

python -m benchmarks.ladder [--pairs 7] [--batch-size 256]

The bare step has the same linear layers and leaky rectifiers and nothing else: no batch norm, no Gaussians, no
likelihood, no binarization. Times are processor seconds of this process, in alternating pairs, one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lvae_torch.data.transforms import Preprocess
from lvae_torch.elbo.objective import Objective
from lvae_torch.elbo.section import LossSection
from lvae_torch.hparams import load
from lvae_torch.models.ladder.section import LadderSection
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import make_optimizer
from lvae_torch.training.section import OptimizerSection
from lvae_torch.training.step import TrainStep

CFG = Path("egs/ladder/mnist_lvae_5.cfg")
STEPS = 10  # in one measurement


class Bare(nn.Module):
    """The products and activations of the ladder, upwards and downwards."""

    def __init__(self, z_dims: tuple[int, ...], widths: tuple[int, ...], n_pixels: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(mlp(a, w) for a, w in zip((n_pixels, *widths), widths, strict=False))
        self.up_heads = nn.ModuleList(nn.Linear(w, 2 * z) for w, z in zip(widths, z_dims, strict=True))
        self.down = nn.ModuleList(mlp(z, w) for z, w in zip(z_dims, widths, strict=True))
        self.down_heads = nn.ModuleList(nn.Linear(w, 2 * z) for w, z in zip(widths[1:], z_dims, strict=False))
        self.out = nn.Linear(widths[0], n_pixels)

    def forward(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for up, head in zip(self.up, self.up_heads, strict=True):
            x = up(x)
            params = head(x)
            total = total + params.mean()
        for down, head in zip(reversed(self.down[1:]), reversed(self.down_heads), strict=True):
            z = params.chunk(2, dim=1)[0]
            params = head(down(z))
            total = total + params.mean()
        return total + self.out(self.down[0](params.chunk(2, dim=1)[0])).mean()


def mlp(n_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.LeakyReLU(0.1), nn.Linear(width, width), nn.LeakyReLU(0.1))


def whole_step(batch_size: int) -> Callable[[], object]:
    """Everything that training does between two log lines, binarization included."""
    settings = load(CFG, ["data.dumps=nowhere"])
    model = settings.model.build((1, 28, 28), 2).train()
    flat = FlatParameters(model)
    section = OptimizerSection(name="adam", eps=1e-4)
    optimizer = make_optimizer(section, flat)
    objective = Objective(LossSection(kl_estimate="sampled"), (1, 28, 28))
    preprocess = Preprocess(256, binarize="dynamic").training
    meter = Meter(len(model.latent_shapes()), torch.device("cpu"))
    step = TrainStep(section, model, flat, None, objective, optimizer, lambda k: 1e-3, meter, preprocess)
    raw = torch.randint(0, 256, (batch_size, 28, 28, 1), dtype=torch.uint8)
    return lambda: step(raw, 1)


def bare_step(batch_size: int) -> Callable[[], object]:
    settings = load(CFG, ["data.dumps=nowhere"])
    assert isinstance(settings.model, LadderSection)
    bare = Bare(settings.model.z_dims, settings.model.widths, 784)
    adam = torch.optim.Adam(bare.parameters(), lr=1e-3, fused=True)
    x = torch.rand(batch_size, 784)

    def step() -> None:
        adam.zero_grad(set_to_none=False)
        bare(x).backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def milliseconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - start) / STEPS * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bare, whole = bare_step(options.batch_size), whole_step(options.batch_size)
    bare(), whole()  # warm up
    pairs = [(milliseconds(bare), milliseconds(whole)) for _ in range(options.pairs)]
    ratios = sorted(b / a for a, b in pairs)
    for name, column in zip(("bare products", "whole step"), zip(*pairs, strict=True), strict=True):
        print(f"{name:<16}{statistics.median(column):8.1f} ms")
    print(f"{'ratio':<16}{statistics.median(ratios):8.2f}   (pairs: {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
