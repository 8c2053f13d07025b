"""The pictures of a report, drawn with the model: samples, reconstructions, and what the layers decide."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lvae_torch.data.classes import rows_of
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.order import spread
from lvae_torch.data.shapes import POINT
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.models.contract import Model, Source, of_classes
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.reporting.grids import SMALL
from lvae_torch.synthesis.modes.layer_inspection import varying_only
from lvae_torch.synthesis.modes.progressive import first_layers
from lvae_torch.synthesis.showing import are_points, save_pairs, save_shown

TEMPERATURES = (1.0, 0.85, 0.7)
MOST_LAYERS = 6
"""Layers that are inspected, and numbers of layers in a row of progressive reconstructions; deep models show some."""
MOST_SIDE = 256
"""Pixels of an image; larger ones are reduced for the page."""
ACROSS = 480
"""Pixels of a picture, about."""
POINTS = 1000


@dataclass(frozen=True)
class Picture:
    """A PNG with its place on the page."""

    group: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Painter:
    """Draws with a model; the same pictures at each call, up to what the weights changed.

    Args:
        x: images to reconstruct, (N, C, H, W), with their classes; None where the data are missing.
        at_once: images of one pass.
        is_asked_to_stop: looked at between passes; what is not drawn by then is left out.
    """

    model: Model
    x: Labelled | None
    seed: int
    device: torch.device
    at_once: int = 64
    is_asked_to_stop: Callable[[], bool] = lambda: False

    @torch.no_grad()
    def pictures(self) -> list[Picture]:
        """All pictures that the model has."""
        was_training = self.model.training
        self.model.eval()
        try:
            drawn = list[Picture]()
            for group in (self._samples, self._reconstructions, self._progressive, self._layers):
                for picture in group():
                    drawn.append(picture)
                    if self.is_asked_to_stop():
                        return drawn
            return drawn
        finally:
            self.model.train(was_training)

    @property
    def _n_layers(self) -> int:
        return len(self.model.latent_shapes())

    @property
    def _columns(self) -> int:
        """Images side by side."""
        side = min(MOST_SIDE, max(SMALL, *self.model.image_shape[1:]))
        return max(2, min(8, ACROSS // side))

    def _samples(self) -> Iterator[Picture]:
        n = POINTS if self.model.image_shape == POINT else self._columns**2
        for temperature in TEMPERATURES if self._n_layers else (1.0,):
            x = self._drawn(prior_sample([temperature] * self._n_layers), range(n), "samples")
            yield Picture(
                "Samples", f"temperature {temperature:g}", _png(partial(save_shown, x=x, columns=self._columns))
            )

    def _reconstructions(self) -> Iterator[Picture]:
        if self.x is None or not self._n_layers:
            return
        n = POINTS if are_points(self.x.images) else self._columns**2 // 2
        x = self.x.at(torch.from_numpy(spread(len(self.x), n)))
        shown = torch.cat(
            [self._of(part, posterior_sample, "reconstructions", j) for j, part in enumerate(x.split(self.at_once))]
        )
        pairs = partial(
            save_pairs, x=_reduced(x.images), shown=_reduced(shown), pairs_per_row=max(1, self._columns // 2)
        )
        yield Picture("Reconstructions", "each image with its reconstruction to the right", _png(pairs))

    def _progressive(self) -> Iterator[Picture]:
        if self.x is None or self._n_layers < 2 or are_points(self.x.images):
            return
        known = [int(k) + 1 for k in spread(self._n_layers, MOST_LAYERS)]
        x = self.x.at(torch.from_numpy(spread(len(self.x), max(2, self._columns // 2))))
        # The same noise for each k: only the layers differ.
        shown = [self._of(x, first_layers(k, self._n_layers, (1.0,) * self._n_layers), "progressive") for k in known]
        rows = torch.stack([x.images, *shown], dim=1).flatten(0, 1)
        caption = (
            f"each image, then what its top {', '.join(map(str, known))} layers know; the rest drawn from the prior"
        )
        drawn = partial(save_shown, x=_reduced(rows), columns=1 + len(known))
        yield Picture("Progressive reconstruction", caption, _png(drawn))

    def _layers(self) -> Iterator[Picture]:
        if self._n_layers < 2:
            return
        columns = max(2, self._columns // 2)
        for i in spread(self._n_layers, MOST_LAYERS).tolist():
            draw = prior_sample([1.0] * self._n_layers)
            sources = [varying_only(i, self._n_layers, draw) for _ in range(columns)]
            places = [[row * self._columns] * columns for row in range(columns)]
            rows = [self._drawn(sources[row], places[row], "layer", i, row) for row in range(columns)]
            caption = f"layer {i} ({'x'.join(map(str, self.model.latent_shapes()[i]))})"
            shown = partial(save_shown, x=torch.cat(rows), columns=columns)
            yield Picture("Layer inspection", caption, _png(shown))

    def _drawn(self, source: Source, places: Sequence[int], *key: int | str) -> Tensor:
        """Means of p(x|z), (n, C, H, W), at these places of a grid, a row of which has one class, if any."""
        seed_everything("report", *key, self.seed)
        parts = [places[first : first + self.at_once] for first in range(0, len(places), self.at_once)]
        passes = (self.model(None, of_classes(source, self._classes(part)), n=len(part)) for part in parts)
        return _reduced(torch.cat([out.likelihood.mean() for out in passes]))

    def _classes(self, places: Sequence[int]) -> Tensor | None:
        n_classes = self.model.n_classes
        return torch.tensor(rows_of(range(n_classes), places, self._columns), device=self.device) if n_classes else None

    def _of(self, x: Labelled, source: Source, *key: int | str) -> Tensor:
        seed_everything("report", *key, self.seed)
        x = x.to(self.device)
        return self.model(x.images, of_classes(source, x.labels)).likelihood.mean()


def _reduced(x: Tensor) -> Tensor:
    factor = -(-max(x.shape[-2:]) // MOST_SIDE)
    return x if factor == 1 else avg_pool2d(x, factor)


def _png(save: Callable[[Path], None]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        save(path)
        return path.read_bytes()
