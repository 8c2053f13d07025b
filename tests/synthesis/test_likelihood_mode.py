"""The likelihood mode: the bound of each image, which an interrupted call takes up again, and never another one."""

from pathlib import Path

import numpy as np
import pytest
import small
import torch
from running import out, results
from small import N_TEST

from lvae_torch.data.dump import Dump
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import iw_bound
from lvae_torch.errors import CfgError
from lvae_torch.synthesis.parts import read_part


def test_likelihood_is_the_bound_of_each_image(folder: Path) -> None:
    metrics = results(folder, "likelihood")
    values = np.concatenate([read_part(p)["log_p"] for p in sorted(out(folder, "likelihood").glob("part_*.npz"))])
    assert metrics["n_images"] == len(values) == N_TEST
    assert metrics["nll_bound"] == pytest.approx(-values.mean())
    assert metrics["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(N_TEST))
    settings = small.settings(folder)
    model = small.opened(settings).model
    x = Dump.open(folder / "dumps", "small").split("test").gather(np.arange(5)).permute(0, 3, 1, 2).float()
    seed_everything("likelihood", 0, 0)
    with torch.no_grad():
        expected = iw_bound(model, x, iw_samples=3, chunk=10)
    np.testing.assert_allclose(values[:5], expected.numpy(), rtol=1e-5)


def test_more_samples_give_a_better_bound(folder: Path) -> None:
    one = results(folder, "likelihood", synthesis__iw_samples=1)["nll_bound"]
    many = results(folder, "likelihood", synthesis__iw_samples=200, synthesis__chunk=1000)["nll_bound"]
    assert many < one


def test_an_interrupted_likelihood_goes_on_after_its_last_whole_part(folder: Path) -> None:
    whole = results(folder, "likelihood")
    parts = sorted(out(folder, "likelihood").glob("part_*.npz"))
    written = {path: path.stat().st_mtime_ns for path in parts}
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    again = results(folder, "likelihood")
    assert again == whole
    kept = [path for path in parts if path.stat().st_mtime_ns == written[path]]
    assert kept == [parts[0], *parts[3:]]


def test_results_of_other_options_are_not_mixed_in(folder: Path) -> None:
    results(folder, "likelihood")
    other = results(folder, "likelihood", synthesis__iw_samples=4)
    assert other["iw_samples"] == 4
    fresh = results(folder, "likelihood", synthesis__iw_samples=4, synthesis__limit=9)
    assert fresh["n_images"] == 9
    assert len(list(out(folder, "likelihood").glob("part_*.npz"))) == 2


def test_half_precision_is_told_and_near(folder: Path) -> None:
    full = results(folder, "likelihood")
    half = results(folder, "likelihood", synthesis__precision="bfloat16")
    assert (full["precision"], half["precision"]) == ("float32", "bfloat16")
    assert half["nll_bound"] != full["nll_bound"]
    assert half["nll_bound"] == pytest.approx(full["nll_bound"], abs=0.1)
    with pytest.raises(CfgError, match="precision = bfloat16 does not suit mode = compression"):
        results(folder, "compression", synthesis__precision="bfloat16")
