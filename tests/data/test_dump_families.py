"""One model trains, and is used, on every kind of dump: binary, grey, colour, large, encoded, points of the plane."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError
from lvae_torch.files import read_json
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

DISCRETIZED = {"model__likelihood": "discretized_logistic_mixture", "model__n_mixtures": 2}
ONE_LAYER = {"model__z_channels": [2], "model__downsample": [0], "model__initial_halving": False}
CASES: dict[str, tuple[Layout, dict[str, Any]]] = {
    "binary": (Layout((1, 28, 28), 2), {}),
    "grey": (Layout((1, 28, 28), 256), {"data__binarize": "dynamic"}),
    "colour 32": (Layout((3, 32, 32), 256), {**DISCRETIZED, "data__flip": True}),
    "colour 64, 5 bits": (Layout((3, 64, 64), 256), {**DISCRETIZED, "data__n_bits": 5}),
    "colour 256": (Layout((3, 256, 256), 256), {**DISCRETIZED}),
    "colour 256 encoded": (Layout((3, 256, 256), 256, encoding="png"), {**DISCRETIZED}),
    "density": (Layout((1, 28, 28), 256), {"model__likelihood": "gaussian", "data__dequantize": True}),
    "points": (Layout((2, 1, 1), 0, dtype="float32"), {"model__likelihood": "gaussian", **ONE_LAYER, "val__images": 0}),
}


def write(dumps: Path, layout: Layout) -> None:
    rng = np.random.default_rng(0)
    with DumpWriter(dumps, "small", layout, {}) as writer:
        for split, n in (("train", 8), ("test", 5)):
            if layout.n_levels:
                writer.add(split, rng.integers(0, layout.n_levels, (n, *layout.hwc)).astype(layout.dtype))
            else:
                writer.add(split, rng.normal(size=(n, *layout.hwc)).astype(layout.dtype))


@pytest.mark.parametrize("kind", CASES)
def test_a_model_trains_on_it(tmp_path: Path, kind: str) -> None:
    layout, overrides = CASES[kind]
    write(tmp_path / "dumps", layout)
    brief = {"train__steps": 2, "train__batch_size": 4, "val__every": 2, "val__images": 2}
    settings = small.settings(tmp_path, **{**brief, **overrides})
    train(settings)
    synthesize(settings, ["likelihood"])
    metrics = read_json(tmp_path / "runs" / "small" / "synthesis" / "likelihood" / "metrics.json")
    assert metrics["n_images"] == 5
    assert np.isfinite(metrics["nll_bound"])


@pytest.mark.parametrize("wrong", [{"data__binarize": "threshold"}, {"data__n_bits": 5}, {"data__dequantize": True}])
def test_points_have_no_levels(tmp_path: Path, wrong: dict[str, Any]) -> None:
    layout, overrides = CASES["points"]
    write(tmp_path / "dumps", layout)
    with pytest.raises(CfgError, match=r"\[data\] \w+: small has values without levels"):
        train(small.settings(tmp_path, **{**overrides, **wrong}))
    with pytest.raises(CfgError, match="likelihood = bernoulli needs pixels in levels"):
        train(small.settings(tmp_path, **{**overrides, "model__likelihood": "bernoulli"}))
