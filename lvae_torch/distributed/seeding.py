"""Noise as a pure function of what it is for, so that nothing about it has to be remembered.

Every training step, evaluation batch and synthesis part seeds torch's generators from a key such as
``("train", seed, rank, step)``; a resumed run then draws what the uninterrupted one would have drawn.
"""

import hashlib

import torch


def seed_of(*key: int | str) -> int:
    """63 well-mixed bits from the key: neighbouring steps and ranks share no structure."""
    text = "/".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(*key: int | str) -> None:
    """Seed torch's global generators, on the CPU and on every CUDA device."""
    torch.manual_seed(seed_of(*key))
