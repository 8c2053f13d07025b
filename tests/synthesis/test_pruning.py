"""KL of single variates, what is left when most of them go, and encodings that come back as the same pictures.

On ladders, spatial, fully connected and very deep, trained for a few steps on pictures that have names.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from named_pictures import BATCH, N_TEST, N_TRAIN, Run, settings
from safetensors.numpy import load_file

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import DataError, NumericalError
from lvae_torch.files import read_json
from lvae_torch.models.sources import masked, posterior_sample
from lvae_torch.reporting.grids import to_uint8
from lvae_torch.synthesis.modes.encoding import _numpy
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesis.variates import Kept
from lvae_torch.train import train

FAMILIES = ["spatial_lvae", "ladder", pytest.param("efficient_vdvae", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    with DumpWriter(folder / "dumps", "small", Layout(small.IMAGE_SHAPE, 2), {}) as writer:
        for split, n in (("train", N_TRAIN), ("test", N_TEST)):
            images = np.zeros((n, 8, 8, 1), dtype=np.uint8)
            for image in images:
                row, column = rng.integers(0, 5, size=2)
                image[row : row + 4, column : column + 4] = 1
            writer.add(split, images, names=[f"{split}/{k:03d}.jpg" for k in range(n)])
    train(settings(request.param, folder))
    return request.param, folder


@pytest.fixture
def run(trained: tuple[str, Path], tmp_path: Path) -> Run:
    """A copy of the trained run that a test may change."""
    shutil.copytree(trained[1], tmp_path / "copy")
    return Run(trained[0], tmp_path / "copy")


def kl_by_hand(latent: Any) -> np.ndarray:
    """Between Gaussians, as textbooks have it, (B, Z, ...)."""
    m, s, mp, sp = (
        value.detach().double().numpy()
        for value in (latent.posterior.mean, latent.posterior.std, latent.prior.mean, latent.prior.std)
    )
    return np.log(sp / s) + (s**2 + (m - mp) ** 2) / (2 * sp**2) - 0.5


def test_div_stats_are_mean_bits_of_each_channel(run: Run) -> None:
    """Over the training split, whose last batch is smaller than the others and weighs less."""
    metrics = run.results("div_stats")
    assert (metrics["n_images"], metrics["split"]) == (N_TRAIN, "train")
    model = run.model()
    per_image: list[list[np.ndarray]] = [[] for _ in model.latent_shapes()]
    with torch.no_grad():
        for b, x in enumerate(run.batches("train", N_TRAIN)):
            seed_everything("posterior", b, 0)
            for layer, latent in zip(per_image, model(x, posterior_sample).latents, strict=True):
                layer.append(kl_by_hand(latent))
    for layer, bits in zip(per_image, run.bits(), strict=True):
        whole = np.concatenate(layer)
        whole = whole.reshape(*whole.shape[:2], -1)
        np.testing.assert_allclose(bits, whole.mean(axis=(0, 2)) / np.log(2), rtol=1e-4)


def test_the_kl_of_variates_adds_up_to_that_of_layers(run: Run) -> None:
    """Both modes draw the same noise for the same images."""
    stats = run.results("div_stats")
    whole = run.results("reconstruction", split="train")
    assert stats["kl_per_layer"] == pytest.approx(whole["kl_per_layer"], rel=1e-5)
    assert stats["bits_per_element_per_layer"] == pytest.approx(whole["bits_per_element_per_layer"], rel=1e-5)
    assert whole["bits_per_element"] == pytest.approx(sum(whole["bits_per_element_per_layer"]))
    assert whole["active_layers"] == sum(bits >= 1e-4 for bits in whole["bits_per_element_per_layer"])
    shares = [entry["share_of_kl"] for entry in stats["kl_held"]]
    assert shares == sorted(shares)


def test_interrupted_div_stats_go_on_after_the_last_whole_part(run: Run) -> None:
    whole, bits = run.results("div_stats"), run.bits()
    first, second = sorted(run.out("div_stats").glob("part_*.npz"))
    written = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:50])
    assert run.results("div_stats") == whole
    assert first.stat().st_mtime_ns == written
    assert all(np.array_equal(one, other) for one, other in zip(bits, run.bits(), strict=True))


def test_kept_variates_are_those_above_the_quantile() -> None:
    """Of 5 variates in layers of different widths: linear interpolation, strictly above."""
    bits = [np.array([0.5, 3.0]), np.array([1.0, 2.0, 0.0])]
    assert Kept.largest(bits, 0.5).channels == [[1], [1]]  # above the median, 1
    assert Kept.largest(bits, 0.3).channels == [[1], [1]]  # above 1.8, between two of them
    assert Kept.largest(bits, 0.25).channels == [[1], []]  # above 2, not at it
    assert Kept.largest(bits, 0.0).channels == [[], []]


def test_the_mask_is_the_originals(shared: Path) -> None:
    golden = np.load(shared / "golden" / "efficient_vdvae" / "components" / "variate_mask.npz", allow_pickle=False)
    kept = Kept.largest(list(golden["div_stats"]), float(golden["quantile"]))
    assert np.array_equal(np.stack(kept.masks), golden["mask"])


def test_masked_reconstruction_counts_what_is_kept(run: Run) -> None:
    metrics = run.results("div_stats", "reconstruction", keep_fraction=0.5)
    keep = Kept.largest(run.bits(), 0.5)
    model, shapes = run.model(), run.model().latent_shapes()
    masks = keep.broadcastable(shapes, torch.device("cpu"))
    sums = np.zeros((3, len(shapes)))
    with torch.no_grad():
        for b, x in enumerate(run.batches("test", N_TEST)):
            seed_everything("posterior", b, 0)
            out = model(x, masked(masks))
            sums[0, 0] -= out.likelihood.log_prob(x).sum().item()
            for i, (latent, mask) in enumerate(zip(out.latents, masks, strict=True)):
                kl = kl_by_hand(latent)
                sums[1:, i] += (kl * mask.numpy()).sum(), kl.sum()
    assert metrics["nll"] == pytest.approx(sums[0, 0] / N_TEST, rel=1e-5)
    np.testing.assert_allclose(metrics["kl_per_layer"], sums[1] / N_TEST, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(metrics["kl_unmasked_per_layer"], sums[2] / N_TEST, rtol=1e-4)
    assert metrics["nelbo"] == pytest.approx(metrics["nll"] + metrics["kl"])
    assert metrics["kept_per_layer"] == [len(channels) for channels in keep.channels]


def test_without_any_variate_a_reconstruction_is_a_sample(run: Run) -> None:
    metrics = run.results("div_stats", "reconstruction", keep_fraction=0.0)
    assert (metrics["kl"], sum(metrics["kept_per_layer"])) == (0.0, 0)
    assert metrics["kl_unmasked"] > 0


def test_a_mask_belongs_to_one_checkpoint(run: Run) -> None:
    with pytest.raises(DataError, match="--mode div_stats"):
        run.results("reconstruction", keep_fraction=0.5)
    run.results("div_stats", checkpoint="4")
    with pytest.raises(DataError, match=r"run small at step 4 .*; this is run small at step 6 .*div_stats again"):
        run.results("reconstruction", keep_fraction=0.5)


@pytest.mark.parametrize("draw", ["mean", "sample"])
def test_decoded_encodings_are_the_reconstructions_to_the_bit(run: Run, draw: str) -> None:
    run.results("reconstruction", "encoding", "decoding", save_singles=True, draw=draw)
    reconstructions = run.pngs("reconstruction")
    assert run.pngs("decoding") == reconstructions
    assert sorted(reconstructions) == [f"test_{k:03d}.png" for k in range(N_TEST)]


def test_only_kept_variates_are_stored(run: Run) -> None:
    metrics = run.results("div_stats", "encoding", keep_fraction=0.4, split="test")
    kept = Kept.largest(run.bits(), 0.4).channels
    assert metrics["kept_per_layer"] == [len(channels) for channels in kept]
    assert read_json(run.out("encoding") / "index.json")["kept"] == kept
    part = load_file(run.out("encoding") / metrics["parts"][0])
    shapes = run.model().latent_shapes()
    stored = {f"z.{i}": (3 * BATCH, len(kept[i]), *shapes[i][1:]) for i in range(len(shapes)) if kept[i]}
    assert {name: array.shape for name, array in part.items() if name.startswith("z.")} == stored
    lines = (run.out("encoding") / "names.txt").read_text().splitlines()
    assert lines[:2] == ["0\ttest/000.jpg", "1\ttest/001.jpg"]
    assert len(lines) == N_TEST


def test_what_was_left_out_is_filled_from_the_prior(run: Run) -> None:
    """At temperature 0, with its mean: as a pass by hand does it."""
    metrics = run.results("div_stats", "encoding", "decoding", keep_fraction=0.5, temperature=0)
    images = read_part(run.out("decoding") / "part_00000.npz")["images"]
    part = load_file(run.out("encoding") / "part_00000.safetensors")
    model, kept = run.model(), read_json(run.out("encoding") / "index.json")["kept"]

    def by_hand(i: int, prior: Any, posterior: Any) -> torch.Tensor:
        z = prior.mean.clone()
        if kept[i]:
            z[:, kept[i]] = torch.from_numpy(part[f"z.{i}"][:BATCH])
        return z

    with torch.no_grad():
        expected = to_uint8(model(None, by_hand, n=BATCH).likelihood.mean())
    assert np.array_equal(images[:BATCH], expected)
    run.results("decoding", temperature=1.0)
    assert not np.array_equal(read_part(run.out("decoding") / "part_00000.npz")["images"], images)
    assert metrics["temperatures"] == [0.0] * len(kept)


def test_half_precision_halves_the_files(run: Run) -> None:
    run.results("encoding")
    whole = load_file(run.out("encoding") / "part_00000.safetensors")
    run.results("encoding", shard_dtype="float16")
    half = load_file(run.out("encoding") / "part_00000.safetensors")
    assert {array.dtype.name for name, array in half.items() if name != "indices"} == {"float16"}
    np.testing.assert_allclose(half["z.0"], whole["z.0"], rtol=2**-10, atol=2**-14)


def test_numbers_too_large_for_half_precision_are_told() -> None:
    """They would become infinite; what is not finite before stays as it is."""
    values = torch.tensor([65_504.0, torch.inf, torch.nan])
    np.testing.assert_array_equal(_numpy(values, "float16"), values.numpy())
    with pytest.raises(
        NumericalError, match=r"shard_dtype = float16 holds numbers up to 65,504; the latents reach 65,6"
    ):
        _numpy(values + 96, "float16")


def test_encodings_of_another_run_are_refused(run: Run) -> None:
    run.results("encoding")
    path = run.out("encoding") / "index.json"
    path.write_text(json.dumps({**read_json(path), "run": "other"}))
    with pytest.raises(DataError, match=r"made with run other at step 6 .*; this is run small at step 6 "):
        run.results("decoding")


def test_encodings_without_room_are_refused_before_the_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(run.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"100 images x .* 1000 B left. Store less: .*keep_fraction"):
        run.results("encoding")
    assert list(run.out("encoding").glob("part_*")) == []


def test_originals_are_written_beside_reconstructions(run: Run) -> None:
    run.results("reconstruction", save_targets=True, limit=5)
    assert sorted(run.pngs("reconstruction", "targets")) == [f"test_{k:03d}.png" for k in (0, 25, 50, 74, 99)]
    assert not (run.out("reconstruction") / "singles").exists()
    run.results("reconstruction")
    assert not (run.out("reconstruction") / "targets").exists()
