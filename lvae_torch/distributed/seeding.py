"""Makes noise a pure function of its purpose, so that checkpoints need no generator state.

Every training step, evaluation batch and synthesis part seeds torch's generators from a key, for example
``("train", seed, rank, step)``; so a resumed run draws the same noise as an uninterrupted one.
"""

import hashlib

import torch


def seed_of(*key: int | str) -> int:
    """63 bits hashed from the key, so that neighbouring steps and ranks have unrelated seeds."""
    text = "/".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(*key: int | str) -> None:
    """Seed torch's global generators, on the CPU and on every CUDA device."""
    torch.manual_seed(seed_of(*key))
