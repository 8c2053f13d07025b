"""The table of optimizers, one line each."""

from torch.optim import Adam, Adamax, AdamW, Optimizer, RAdam

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "adamax": Adamax, "radam": RAdam}
FUSED = {"adam", "adamw"}
"""Optimizers that PyTorch can run as one fused pass on a CPU."""
