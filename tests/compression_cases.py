"""Small models of every family that compresses, images as the coders take them, and archives of them."""

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import dense, model, one_latent, pixelcnn, residual, very_deep, vqvae
from torch import Tensor

from lvae_torch.compression.archive import DIGEST, LENGTH, MAGIC
from lvae_torch.compression.calibration import calibrate
from lvae_torch.compression.chain import Chain
from lvae_torch.compression.codec import Codec
from lvae_torch.compression.compressor import Compressor
from lvae_torch.compression.conditions import widened
from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Stack, Words

pytest.importorskip("constriction", reason="has no wheels for this machine")

GREY, COLOUR, CODES = (1, 8, 8), (3, 8, 8), (1, 4, 4)


@dataclass(frozen=True)
class Case:
    """A family with a likelihood, and its images."""

    build: Callable[..., Any]
    shape: tuple[int, int, int]
    n_levels: int
    section: dict[str, Any]

    def model(self) -> Any:
        return self.build(image_shape=self.shape, n_levels=self.n_levels, **self.section).eval()

    def levels(self, n: int, seed: int = 0) -> np.ndarray:
        """Images that are smooth in part, (n, C, H, W), so that plain codes and models have something to find."""
        rng = np.random.default_rng(seed)
        base = rng.integers(0, self.n_levels, (n, self.shape[0], 1, 1))
        noise = rng.integers(0, self.n_levels, (n, *self.shape))
        return np.where(rng.random((n, *self.shape)) < 0.5, base, noise).astype(np.int64)


def _family(name: str) -> Callable[..., Any]:
    maker = dense if name in ("ladder", "hierarchical_vae") else one_latent
    return lambda **options: maker(name, **options)


LOGISTIC, MIXTURE = {"likelihood": "discretized_logistic"}, {"likelihood": "discretized_logistic_mixture"}
BINARY = {"likelihood": "bernoulli"}
CASES: dict[str, Case] = {
    "spatial bernoulli": Case(model, GREY, 2, {}),
    "spatial logistic": Case(model, COLOUR, 256, LOGISTIC),
    "spatial mixture": Case(model, COLOUR, 256, {**MIXTURE, "n_mixtures": 3}),
    "spatial three levels": Case(model, GREY, 3, {**MIXTURE, "n_mixtures": 2}),
    "very deep bernoulli": Case(very_deep, GREY, 2, {}),
    "very deep 8 bits": Case(very_deep, COLOUR, 256, {}),
    "very deep 8 bits overlapping": Case(very_deep, COLOUR, 256, {"bins": "overlapping"}),
    "very deep 5 bits exact": Case(very_deep, COLOUR, 32, {"bins": "exact"}),
    "very deep 5 bits overlapping": Case(very_deep, COLOUR, 32, {"bins": "overlapping"}),
    "very deep residual posterior": Case(very_deep, GREY, 2, {"residual_posterior": True}),
    "VDVAE": Case(residual, COLOUR, 256, {}),
    "ladder": Case(_family("ladder"), GREY, 2, {}),
    "hierarchical VAE": Case(_family("hierarchical_vae"), GREY, 2, {}),
    "ladder of logistics": Case(_family("ladder"), COLOUR, 256, LOGISTIC),
    "VAE": Case(_family("vae"), COLOUR, 256, LOGISTIC),
    "VAE of a mixture": Case(_family("vae"), COLOUR, 32, {**MIXTURE, "n_mixtures": 2}),
    "VLAE": Case(_family("vlae"), GREY, 2, BINARY),
    "VLAE of logistics": Case(_family("vlae"), COLOUR, 256, LOGISTIC),
    "VQ-VAE": Case(vqvae, COLOUR, 256, LOGISTIC),
    "PixelCNN": Case(pixelcnn, CODES, 32, {}),
    "gated PixelCNN": Case(pixelcnn, CODES, 5, {"gated": True, "kernel": 3}),
}


@dataclass(frozen=True)
class Array:
    """Images in memory as a ``LevelSource``."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def levels(self, first: int, n: int) -> np.ndarray:
        return self.values[first : first + n]


def codec(model: Any, case: Case, levels: np.ndarray, is_robust: bool = False) -> tuple[Codec, float]:
    """Calibrated on ``levels``; and what the posteriors of an image take."""
    used = widened(model) if is_robust else model
    dtype = next(used.parameters()).dtype
    torch.manual_seed(0)
    found = calibrate(used, as_x(levels, case.n_levels).to(dtype))
    return Codec(used, case.n_levels, found.grids, torch.device("cpu"), dtype, Rounding(is_robust)), found.bits_back


def as_x(levels: np.ndarray, n_levels: int) -> Tensor:
    return torch.from_numpy(levels).float() / (n_levels - 1)


def filled_stack(n_words: int, seed: int = 0) -> Stack:
    """A stack of random bits, all of them in memory."""
    words = Words(io.BytesIO())
    words.push(np.random.default_rng(seed).integers(1, 2**32, n_words, dtype=np.uint32))
    return Stack(words, spills=True)


def chained(chain: Chain, levels: np.ndarray, bits_back: float) -> tuple[bytes, bytes, int]:
    """All images on a stack: its words, the digest, and its bits."""
    file = io.BytesIO()
    stack = Stack(Words(file), spills=True)
    digest = chain.encode(Array(levels), stack, bits_back)
    n_bits = stack.n_bits
    stack.settle()
    return file.getvalue(), digest, n_bits


def unchained(chain: Chain, words: bytes, n_images: int) -> np.ndarray:
    stack = Stack(Words(io.BytesIO(words), 0, len(words) // 4), spills=False)
    return np.concatenate(list(chain.decode(n_images, stack)))


def as_bits(nats: float) -> float:
    return nats / math.log(2)


CASE, N = CASES["spatial bernoulli"], 40
"""What tests of archives put into them: so many images of one family."""


def compressor(told: str = "") -> Compressor:
    return Compressor(CASE.model(), CASE.n_levels, told)


def images(path: Path, by: Compressor | None = None, anyway: bool = False) -> np.ndarray:
    with (by or compressor()).opened(path, anyway) as (_, groups):
        return np.concatenate(list(groups))


def rebuilt(data: bytes, header: dict[str, Any] | None = None, words: bytes | None = None) -> bytes:
    """An archive with another header or other words, whose own digest is right: as somebody hostile would make it."""
    (n_text,) = LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + LENGTH.size])
    first = len(MAGIC) + LENGTH.size
    text = data[first : first + n_text] if header is None else json.dumps(header).encode()
    body = data[first + n_text : -2 * DIGEST] if words is None else words
    head = MAGIC + LENGTH.pack(len(text)) + text + body + data[-2 * DIGEST : -DIGEST]
    return head + hashlib.sha256(head).digest()[:DIGEST]


def header_of(data: bytes) -> dict[str, Any]:
    (n_text,) = LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + LENGTH.size])
    first = len(MAGIC) + LENGTH.size
    found: dict[str, Any] = json.loads(data[first : first + n_text])
    return found
