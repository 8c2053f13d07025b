"""Runs of several families on pictures that have names, and what their modes leave."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import small
import torch

from lvae_torch.data.dump import Dump
from lvae_torch.files import read_json
from lvae_torch.hparams import Settings, load_text
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize

N_TRAIN, N_TEST, BATCH = 36, 100, 8
VERY_DEEP = """scales = [1, 2, 8]
bottom_up = [[1, 1], [1], [1]]
top_down = [[1], [2], [1, 1]]
widths = 8
kernels = [3, 3, 1]
z_channels = [3, 2, 4]
likelihood = bernoulli
"""
MODELS = {
    "spatial_lvae": "z_channels = [2, 3]\ndownsample = [1, 1]\nn_filters = 4\nblocks_per_layer = 1\n",
    "ladder": "z_dims = [4, 3]\nwidths = [8, 6]\n",
    "efficient_vdvae": VERY_DEEP,
}
CFGS = {
    family: re.sub(r"\[model\].*?\[loss\]", f"[model]\nfamily = {family}\n{section}[loss]", small.CFG, flags=re.DOTALL)
    for family, section in MODELS.items()
}


def settings(family: str, folder: Path, **overrides: Any) -> Settings:
    sizes = {"synthesis__batch_size": BATCH, "synthesis__shard_size": 3 * BATCH, **overrides}
    return load_text(CFGS[family], "small.cfg", small.override_list(folder, sizes))


class Run:
    """A trained run, and what its modes leave."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder

    def results(self, *modes: str, **overrides: Any) -> dict[str, Any]:
        """``metrics.json`` of the last of ``modes``."""
        chosen = {f"synthesis__{key}": value for key, value in overrides.items()}
        synthesize(settings(self.family, self.folder, **chosen), modes)
        read: dict[str, Any] = read_json(self.out(modes[-1]) / "metrics.json")
        return read

    def out(self, mode: str) -> Path:
        return self.folder / "runs" / "small" / "synthesis" / mode

    def pngs(self, mode: str, folder: str = "singles") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.out(mode) / folder).iterdir()}

    def bits(self) -> list[np.ndarray]:
        arrays = read_part(self.out("div_stats") / "div_stats.npz")
        return [arrays[f"bits.{i}"] for i in range(len(self.model().latent_shapes()))]

    def model(self) -> Any:
        chosen = settings(self.family, self.folder)
        return small.opened(chosen).model

    def batches(self, split: str, n: int) -> list[torch.Tensor]:
        images = Dump.open(self.folder / "dumps", "small").split(split).gather(np.arange(n))
        return list(images.permute(0, 3, 1, 2).float().split(BATCH))
