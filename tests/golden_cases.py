"""Where golden cases lie: small copies in the repository, all of them in ``../shared`` where that exists."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent / "golden" / "spatial_lvae"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden" / "spatial_lvae"


@dataclass(frozen=True)
class ModelCase:
    """One recorded model: its config, weights, and an inference and a generation pass."""

    name: str
    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    infer: dict[str, np.ndarray]
    prior: dict[str, np.ndarray]
    inspect: dict[str, np.ndarray]

    @property
    def n_layers(self) -> int:
        return len(self.config["z_dims"])

    def top_down(self, arrays: dict[str, np.ndarray], name: str) -> list[Tensor]:
        """``name.i`` of all layers in float64, top first; the files count from the bottom."""
        return [double(arrays[f"{name}.{i}"]) for i in reversed(range(self.n_layers))]


def double(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array)).double()


def small_copies() -> Iterator[ModelCase]:
    for path in sorted(HERE.glob("[a-f]_*.npz")):
        arrays = arrays_of(path)
        groups: dict[str, dict[str, np.ndarray]] = {"weights": {}, "infer": {}, "prior": {}}
        for key, array in arrays.items():
            group, _, name = key.partition("/")
            if name:
                groups[group][name] = array
        yield ModelCase(path.stem, json.loads(str(arrays["config"])), inspect={}, **groups)


def shared_cases() -> Iterator[ModelCase]:
    for folder in sorted(SHARED.glob("[a-f]_*")):
        config = json.loads((folder / "config.json").read_text())
        parts = {name: arrays_of(folder / f"{name}.npz") for name in ("weights", "infer", "prior", "inspect")}
        yield ModelCase(folder.name, config, **parts)


def model_cases() -> list[ModelCase]:
    """The small copies, and the whole folders where they are at hand."""
    return [*small_copies(), *shared_cases()]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def function_arrays(name: str) -> dict[str, np.ndarray]:
    """A small copy by name, with its ``config`` text parsed where it has one."""
    arrays = arrays_of(HERE / f"{name}.npz")
    if "config" in arrays:
        arrays["config"] = json.loads(str(arrays["config"]))
    return arrays


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays below ``prefix/``, without it."""
    return {key.removeprefix(prefix + "/"): a for key, a in arrays.items() if key.startswith(prefix + "/")}


def fed_in_order(noise: list[Tensor], n: int) -> Any:
    """Recorded noise (K, n, ...) handed out pass by pass, as many samples at a time as are asked for."""
    used = [0] * len(noise)

    def source(i: int, prior: Any, posterior: Any) -> Tensor:
        k = posterior.mean.shape[0] // n
        eps = noise[i][used[i] : used[i] + k].flatten(0, 1)
        used[i] += k
        return posterior.at_noise(eps)

    return source
