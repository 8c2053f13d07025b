"""What a training run shows of itself: numbers and pictures, to every reporter at once."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lvae_torch.evaluation import Evaluation
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.objectives import bits_per_dim
from lvae_torch.reporting.grids import image_grid, pair_grid
from lvae_torch.reporting.reporter import Reporter
from lvae_torch.seeding import seed_everything
from lvae_torch.training.meter import Reading


@dataclass
class TrainingWatch:
    """The loop's watcher: turns readings and evaluations into named scalars and image grids."""

    reporter: Reporter
    model: Model
    """The model that is evaluated."""
    n_dims: int
    pictures: Tensor | None
    """Images to reconstruct, (B, C, H, W) in [0, 1]; None for no pictures."""
    seed: int
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._since, self._last_step = time.monotonic(), None

    def logged(self, step: int, reading: Reading, learning_rate: float, images_per_step: int) -> None:
        """Means since the last log line."""
        nelbo = reading.nelbo
        values = {
            "train/loss": reading.loss,
            "train/nelbo": nelbo,
            "train/bpd": bits_per_dim(nelbo, self.n_dims),
            "train/nll": reading.nll,
            "train/kl": sum(reading.kl),
        }
        values |= {f"train/kl/{i:02d}": kl for i, kl in enumerate(reading.kl)}
        values |= {
            "train/grad_norm": reading.grad_norm,
            "train/skipped_steps": float(reading.skipped),
            "train/learning_rate": learning_rate,
            "speed/images_per_second": self._images_per_second(reading, images_per_step),
            "speed/peak_memory_gib": peak_memory_gib(next(iter(self._parameters())).device),
        }
        self.reporter.scalars(step, values)

    def evaluated(self, step: int, evaluation: Evaluation, last: bool) -> None:
        """The validation split, with a grid of samples and one of reconstructions."""
        self.evaluations.append((step, evaluation))
        self.reporter.scalars(step, {f"val/{k}": v for k, v in evaluation.scalars(self.n_dims).items()})
        if self.pictures is not None:
            self._show(step, self.pictures)
        self._since = time.monotonic()  # evaluation is no part of the training speed

    @torch.no_grad()
    def _show(self, step: int, x: Tensor) -> None:
        seed_everything("pictures", self.seed)  # the same noise each time, so that pictures of two steps compare
        reconstruction = self.model(x, posterior_sample).likelihood.mean()
        at_full_width = prior_sample([1.0] * len(self.model.latent_shapes()))
        samples = self.model(None, at_full_width, n=x.shape[0]).likelihood.mean()
        columns = max(1, int(x.shape[0] ** 0.5))
        self.reporter.image(step, "samples", image_grid(samples, columns))
        self.reporter.image(step, "reconstructions", pair_grid(x, reconstruction, columns))

    def _images_per_second(self, reading: Reading, images_per_step: int) -> float:
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        return reading.n_steps * images_per_step / max(elapsed, 1e-9)

    def _parameters(self) -> list[Tensor]:
        assert isinstance(self.model, nn.Module)
        return list(self.model.parameters())


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held on ``device``, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
