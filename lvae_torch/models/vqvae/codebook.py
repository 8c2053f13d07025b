"""Codebooks of vector quantisation. Shapes: K codes, D numbers in each, N vectors to be encoded.

What changes in the forward pass is a buffer, never a parameter: the buffers of a step that is skipped are put back.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def nearest(rows: Tensor, vectors: Tensor) -> Tensor:
    """Index of the nearest of ``vectors``, (K, D), to each row, (N, D): int64 (N,); the lowest of several."""
    return distances_less_own_norm(rows, vectors).argmin(dim=1)


def distances_less_own_norm(rows: Tensor, vectors: Tensor) -> Tensor:
    """Squared distances less the rows' own squared norms, (N, K), as one matrix product.

    Those norms would change no choice, and large ones would cost the digits that decide it.
    """
    return torch.addmm((vectors**2).sum(dim=1), rows, vectors.T, alpha=-2)


class Codebook(nn.Module):
    """K vectors, and how long ago each was used."""

    moves_by_gradient: bool
    idle: Tensor

    def __init__(self, n_codes: int, dim: int, restart_after: int) -> None:
        """``restart_after``: steps without use after which a code begins anew at a vector of the batch; 0 for never."""
        super().__init__()
        self.n_codes = n_codes
        self.dim = dim
        self.restart_after = restart_after
        self.register_buffer("idle", torch.zeros(n_codes, dtype=torch.int64))  # steps since its last use

    @property
    def vectors(self) -> Tensor:
        """(K, D)."""
        raise NotImplementedError

    def start_at(self, vectors: Tensor) -> None:
        """Begin with these, (K, D)."""
        raise NotImplementedError

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        """What a training step teaches beside gradients: ``codes``, (N,), were chosen for ``rows``, (N, D).

        Every rank takes part, and ends with the same codebook.
        """
        if self.restart_after:
            (counts,) = summed_over_ranks(indicators(codes, self.n_codes, rows.dtype).sum(dim=0))
            self._restart(counts, rows)

    def _restart(self, counts: Tensor, rows: Tensor) -> None:
        self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))
        dead = self.idle >= self.restart_after
        candidates = rows[torch.randint(len(rows), (self.n_codes,), device=rows.device)]
        if ranks_are_many():
            dist.broadcast(candidates, src=0)
        self._put(dead.unsqueeze(1), candidates)
        self.idle.masked_fill_(dead, 0)

    def _put(self, where: Tensor, vectors: Tensor) -> None:
        """``vectors``, (K, D), in place of those where the mask, (K, 1), is on."""
        raise NotImplementedError


class LearnedCodebook(Codebook):
    """Vectors that gradients move."""

    moves_by_gradient = True
    moved: Tensor

    def __init__(self, n_codes: int, dim: int, restart_after: int = 0) -> None:
        super().__init__(n_codes, dim, restart_after)
        self.weight = nn.Parameter(uniform_start(n_codes, dim))
        self.register_buffer("moved", torch.zeros(n_codes, dim))  # what restarts have added

    @property
    def vectors(self) -> Tensor:
        return self.weight + self.moved

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        self.weight.copy_(vectors)

    def _put(self, where: Tensor, vectors: Tensor) -> None:
        self.moved.copy_(torch.where(where, vectors - self.weight, self.moved))


class EmaCodebook(Codebook):
    """Vectors that are moving averages of what was encoded with them (van den Oord et al. 2017, appendix A.1)."""

    moves_by_gradient = False
    averages: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self, n_codes: int, dim: int, restart_after: int = 0, decay: float = 0.99, laplace: float = 1e-5
    ) -> None:
        """``laplace`` keeps the counts of unused codes away from zero."""
        super().__init__(n_codes, dim, restart_after)
        self.decay = decay
        self.laplace = laplace
        self.register_buffer("averages", uniform_start(n_codes, dim))
        self.register_buffer("counts", torch.ones(n_codes))
        self.register_buffer("sums", self.averages.clone())

    @property
    def vectors(self) -> Tensor:
        return self.averages

    def start_at(self, vectors: Tensor) -> None:
        self._put(torch.ones_like(self.averages[:, :1], dtype=torch.bool), vectors)

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        """Averages of what the codes were chosen for, then the restarts."""
        chosen = indicators(codes, self.n_codes, rows.dtype)
        counts, sums = summed_over_ranks(chosen.sum(dim=0), chosen.T @ rows)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.laplace) / (total + self.n_codes * self.laplace) * total
        self.averages.copy_(self.sums / smoothed.unsqueeze(1))
        if self.restart_after:
            self._restart(counts, rows)

    def _put(self, where: Tensor, vectors: Tensor) -> None:
        """As if each had been chosen once, by its own vector."""
        self.averages.copy_(torch.where(where, vectors, self.averages))
        self.sums.copy_(torch.where(where, vectors, self.sums))
        self.counts.masked_fill_(where.squeeze(1), 1.0)


def uniform_start(n_codes: int, dim: int) -> Tensor:
    """(K, D), uniform in [-1/K, 1/K]."""
    return torch.empty(n_codes, dim).uniform_(-1 / n_codes, 1 / n_codes)


@torch.no_grad()
def k_means(rows: Tensor, n_codes: int, iterations: int = 20) -> Tensor:
    """Centres of ``n_codes`` clusters of rows (N, D), by Lloyd's iterations from rows drawn at random, (K, D).

    A centre that is nearest to no row stays where it is.

    Raises:
        ValueError: if there are fewer rows than centres.
    """
    if len(rows) < n_codes:
        raise ValueError(f"{len(rows)} vectors are too few for {n_codes} clusters.")
    centres = rows[torch.randperm(len(rows), device=rows.device)[:n_codes]]
    for _ in range(iterations):
        chosen = indicators(nearest(rows, centres), n_codes, rows.dtype)
        counts = chosen.sum(dim=0).unsqueeze(1)
        centres = torch.where(counts > 0, (chosen.T @ rows) / counts.clamp(min=1), centres)
    return centres


def indicators(codes: Tensor, n_codes: int, dtype: torch.dtype) -> Tensor:
    """1 where row n has code k, (N, K), else 0: products with it add in one order on every device."""
    zeros = torch.zeros(len(codes), n_codes, dtype=dtype, device=codes.device)
    return zeros.scatter_(1, codes.unsqueeze(1), 1.0)


def ranks_are_many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def summed_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each added up over all ranks, in one exchange."""
    if not ranks_are_many():
        return tensors
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    pieces = together.split([tensor.numel() for tensor in tensors])
    return tuple(piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True))
