"""The pass of an evaluation over one batch: what it adds to the sums of the split."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lvae_torch.distributed.graph import Graphed, Inputs, Outputs
from lvae_torch.distributed.place import float64_device, in_float64
from lvae_torch.elbo.bounds import elbo_terms, weighted_pass
from lvae_torch.elbo.units import sums_of_units
from lvae_torch.models.contract import Model, Output, of_classes
from lvae_torch.models.sources import posterior_sample

UNITS = "units"
"""Before the number of a layer: the name of the sums of its units."""


class Passes:
    """What an evaluation does to a batch: the pass of the ELBO, and those of the bound; on a card each as one graph."""

    def __init__(self, model: Model, as_published: bool = False, is_graphed: bool = False) -> None:
        self._model, self._as_published, self._is_graphed = model, as_published, is_graphed
        self._n_images: int | None = None
        self._make()

    def _make(self) -> None:
        elbo = partial(elbo_sums, self._model, self._as_published)
        self.elbo: Callable[[Inputs, None], Outputs] = Graphed(elbo, "an evaluation") if self._is_graphed else elbo
        """x and labels -> the sums over the batch."""
        self.weighted = weighted_pass(self._model, is_graphed=self._is_graphed)

    def begin(self, n_images: int) -> None:
        """A batch of so many images comes.

        Where it is of another size, the rest of the split, graphs are let go, with the memory that they keep of a card.
        """
        if self._is_graphed and self._n_images not in (None, n_images):
            self._is_graphed = False
            self._make()
            torch.cuda.empty_cache()
        self._n_images = n_images


def elbo_sums(model: Model, as_published: bool, inputs: Inputs, key: None = None) -> Outputs:
    """Sums over a batch, float64: of the terms of the ELBO, of its square, of the units of each layer."""
    x, labels = inputs
    assert x is not None
    out = model(x, of_classes(posterior_sample, labels))
    terms = elbo_terms(x, out)
    per_image = {"nll": terms.nll, "kl": terms.kl, "count": torch.ones_like(terms.nll)}
    nll, kl = (in_float64(term) for term in (terms.nll, terms.kl))
    per_image["square"] = (nll + kl.sum(dim=1)) ** 2  # of exactly what is added up above
    per_image |= {f"penalty/{name}": penalty for name, penalty in terms.penalties.items()}
    if as_published and (published := published_nll(x, out)) is not None:
        per_image["published"] = published
    sums = {name: summed(values) for name, values in per_image.items()}
    sums |= {f"usage/{i}": in_float64(counts) for i, counts in terms.usage.items()}
    return sums | {f"{UNITS}/{i}": sums_of_units(latent) for i, latent in enumerate(out.latents)}


def summed(values: Tensor) -> Tensor:
    """Their sum over the images, float64."""
    return values.to(float64_device(values.device)).sum(dim=0, dtype=torch.float64)


def published_nll(x: Tensor, out: Output) -> Tensor | None:
    """-log p(x|z) as the family's original program approximates it, nats, (B,); None where it has none of its own."""
    return None if out.as_published is None else -out.as_published().log_prob(x)
