"""Codebooks of vector quantisation. Shapes: K codes of D numbers each, N vectors to encode.

The forward pass changes only buffers, never parameters, because a skipped step restores the buffers.
The moving averages are from van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.
"""

from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor, nn

UPPER_BITS = ~(2**13 - 1)
"""Of a float32: sign, exponent, and the 10 bits of the mantissa that TF32 keeps."""


def nearest(rows: Tensor, vectors: Tensor) -> Tensor:
    """For each row, (N, D), the index of the nearest of ``vectors``, (K, D): int64 (N,); the lowest at a tie."""
    return distances_less_own_norm(rows, vectors).argmin(dim=1)


def distances_less_own_norm(rows: Tensor, vectors: Tensor) -> Tensor:
    """Squared distances minus the rows' squared norms, (N, K), as one matrix product.

    Row norms are equal for all codes, so argmin ignores them; adding large ones would lose precision.
    """
    (upper, *lower), (upper_of_code, *lower_of_code) = multiplied_exactly(rows), multiplied_exactly(vectors)
    distances = torch.addmm((vectors**2).sum(dim=1), upper, upper_of_code.T, alpha=-2)
    for one, other in (*((upper, part) for part in lower_of_code), *((part, upper_of_code) for part in lower)):
        distances.addmm_(one, other.T, alpha=-2)
    return distances


def multiplied_exactly(x: Tensor) -> tuple[Tensor, ...]:
    """x, (N, D), as the sum of parts whose products a card does not round; x alone where nothing is rounded.

    ``[train] tf32`` rounds what is multiplied to 10 bits, by which close codes cannot be told apart. The upper part has
    these 10 bits, the lower one the rest.
    """
    if not products_are_rounded(x):
        return (x,)
    upper = (x.view(torch.int32) & UPPER_BITS).view(torch.float32)
    return upper, x - upper


def products_are_rounded(x: Tensor) -> bool:
    """Whether the device of x may round what it multiplies. Where ``[train] tf32`` is off, the parts do no harm."""
    return x.is_cuda and x.dtype == torch.float32


def of_each_code(chosen: Tensor, rows: Tensor) -> Tensor:
    """Sum of the rows, (N, D), that chose each code: (K, D); ``chosen`` are ``indicators``."""
    upper, *lower = (chosen.T @ part for part in multiplied_exactly(rows))
    return sum(lower, upper)


class Codebook(nn.Module, ABC):
    """K vectors, and how long each has been unused."""

    moves_by_gradient: bool
    idle: Tensor

    def __init__(self, n_codes: int, dim: int, restart_after: int) -> None:
        """``restart_after``: a code unused for this many steps restarts at a vector of the batch; 0 for never."""
        super().__init__()
        self.n_codes = n_codes
        self.dim = dim
        self.restart_after = restart_after
        self.register_buffer("idle", torch.zeros(n_codes, dtype=torch.int64))  # steps since its last use

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """The code vectors, (K, D)."""

    @abstractmethod
    def start_at(self, vectors: Tensor) -> None:
        """Set the initial code vectors, (K, D)."""

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        """Update without gradients after a training step that chose ``codes``, (N,), for ``rows``, (N, D).

        All ranks must call it; they end with the same codebook.
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

    @abstractmethod
    def _put(self, where: Tensor, vectors: Tensor) -> None:
        """Replace the code vectors by ``vectors``, (K, D), where the mask ``where``, (K, 1), is on."""


class LearnedCodebook(Codebook):
    """Code vectors that gradients move."""

    moves_by_gradient = True
    moved: Tensor

    def __init__(self, n_codes: int, dim: int, restart_after: int = 0) -> None:
        super().__init__(n_codes, dim, restart_after)
        self.weight = nn.Parameter(uniform_start(n_codes, dim))
        self.register_buffer("moved", torch.zeros(n_codes, dim))  # sum of the moves by restarts

    @property
    def vectors(self) -> Tensor:
        return self.weight + self.moved

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        self.weight.copy_(vectors)

    def _put(self, where: Tensor, vectors: Tensor) -> None:
        self.moved.copy_(torch.where(where, vectors - self.weight, self.moved))


class EmaCodebook(Codebook):
    """Code vectors that are moving averages of the encodings assigned to them (VQ-VAE paper, appendix A.1)."""

    moves_by_gradient = False
    averages: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self, n_codes: int, dim: int, restart_after: int = 0, decay: float = 0.99, laplace: float = 1e-5
    ) -> None:
        """``laplace`` is added to the counts, so that those of unused codes stay above zero."""
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
        """Update the averages of the rows that chose each code, then restart unused codes."""
        chosen = indicators(codes, self.n_codes, rows.dtype)
        counts, sums = summed_over_ranks(chosen.sum(dim=0), of_each_code(chosen, rows))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.laplace) / (total + self.n_codes * self.laplace) * total
        self.averages.copy_(self.sums / smoothed.unsqueeze(1))
        if self.restart_after:
            self._restart(counts, rows)

    def _put(self, where: Tensor, vectors: Tensor) -> None:
        """Set each new code as if its own vector had chosen it once."""
        self.averages.copy_(torch.where(where, vectors, self.averages))
        self.sums.copy_(torch.where(where, vectors, self.sums))
        self.counts.masked_fill_(where.squeeze(1), 1.0)


def uniform_start(n_codes: int, dim: int) -> Tensor:
    """(K, D), uniform in [-1/K, 1/K]."""
    return torch.empty(n_codes, dim).uniform_(-1 / n_codes, 1 / n_codes)


@torch.no_grad()
def k_means(rows: Tensor, n_codes: int, iterations: int = 20) -> Tensor:
    """Centres, (K, D), of ``n_codes`` clusters of rows, (N, D), by Lloyd's iterations from random rows.

    A centre without rows stays where it is.

    Raises:
        ValueError: if there are fewer rows than centres.
    """
    if len(rows) < n_codes:
        raise ValueError(f"{len(rows)} vectors are too few for {n_codes} clusters.")
    centres = rows[torch.randperm(len(rows), device=rows.device)[:n_codes]]
    for _ in range(iterations):
        chosen = indicators(nearest(rows, centres), n_codes, rows.dtype)
        counts = chosen.sum(dim=0).unsqueeze(1)
        centres = torch.where(counts > 0, of_each_code(chosen, rows) / counts.clamp(min=1), centres)
    return centres


def indicators(codes: Tensor, n_codes: int, dtype: torch.dtype) -> Tensor:
    """(N, K), 1 where row n has code k, else 0; a matrix product with it adds in a fixed order on every device."""
    zeros = torch.zeros(len(codes), n_codes, dtype=dtype, device=codes.device)
    return zeros.scatter_(1, codes.unsqueeze(1), 1.0)


def ranks_are_many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def summed_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor summed over all ranks, in one exchange."""
    if not ranks_are_many():
        return tensors
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    pieces = together.split([tensor.numel() for tensor in tensors])
    return tuple(piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True))
