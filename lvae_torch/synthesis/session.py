"""What every inference mode works with."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lvae_torch.data.images import Images
from lvae_torch.hparams.sections import SynthesisSection
from lvae_torch.models.contract import Likelihood, Model
from lvae_torch.processes import Processes
from lvae_torch.seeding import seed_everything
from lvae_torch.synthesis.parts import Format, Parts


@dataclass(frozen=True)
class Session:
    """A trained model, what to do with it, and where results go. The noise of part j never depends on the ranks."""

    model: Model
    options: SynthesisSection
    processes: Processes
    out: Path
    identity: Mapping[str, Any]
    """Run, checkpoint and data: everything a number must be read with."""
    given_images: Images | None = None
    labels: np.ndarray | None = None
    """Class of each image of the split, where the dump has them."""
    steps_per_epoch: int = 1

    @property
    def images(self) -> Images:
        assert self.given_images is not None, "this mode was opened without a dump"
        return self.given_images

    @property
    def run_folder(self) -> Path:
        return self.out.parent.parent

    @property
    def n_dims(self) -> int:
        return int(np.prod(self.model.image_shape))

    def batches(self, size: int, mode: str) -> Iterator[tuple[int, np.ndarray, Tensor]]:
        """(j, indices, x) of this rank's batches of the split; torch's generator is seeded for each."""
        for j, indices in self.images.batches(size, self.processes):
            yield j, indices, self.x_at(indices, mode, j)

    def n_batches(self, size: int) -> int:
        return self.images.n_batches(size)

    def x_at(self, indices: np.ndarray, *key: int | str) -> Tensor:
        """Images as x on the device; what is drawn after them follows from the seed and ``key``."""
        seed_everything(*key, self.options.seed)
        return self.images.at(indices, self.processes.device)

    def picture_of(self, likelihood: Likelihood) -> Tensor:
        """What ``[synthesis] draw`` shows of p(x|z), (B, C, H, W)."""
        return {"mean": likelihood.mean, "sample": likelihood.sample, "mode": likelihood.mode}[self.options.draw]()

    def parts(self, count: int, *options: str, file_format: Format = "npz") -> Parts:
        """This mode's result files: those of the same model, data and ``options`` stay, all others are removed."""
        parts = Parts(self.out, self.fingerprint(*options), file_format)
        if self.processes.is_main:
            parts.prepare(count)
        self.processes.barrier()
        return parts

    def fingerprint(self, *options: str) -> str:
        """Tells results of the same model, data and options from all others."""
        said = {**self.identity, **{key: getattr(self.options, key) for key in (*options, "seed", "use_ema")}}
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def n_rounds(session: Session, n: int, size: int) -> Iterator[tuple[int, int]]:
    """(j, count) of this rank's parts of ``n`` things in parts of ``size``."""
    for j in range(session.processes.rank, -(-n // size), session.processes.world):
        yield j, min(size, n - j * size)
