"""The Python door: what a trained run gives, held against the model itself, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import small
import torch
from torch.testing import assert_close

import lvae_torch
from lvae_torch import TrainedRun
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.errors import CfgError, DataError
from lvae_torch.models.sources import given_latents, posterior_mean
from lvae_torch.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of two latent layers, with averaged weights."""
    folder = tmp_path_factory.mktemp("door")
    small.write_dump(folder / "dumps")
    train(small.settings(folder, train__ema_decay=0.5, synthesis__batch_size=5))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> TrainedRun:
    return lvae_torch.load_run("small", runs=folder / "runs", device="cpu")


def test_a_run_is_loaded_by_name_and_by_folder(folder: Path, run: TrainedRun) -> None:
    again = lvae_torch.load_run(folder / "runs" / "small")
    assert (again.step, again.name, again.is_averaged) == (6, "small", True)
    assert again.trained_on == run.trained_on and again.settings.model == run.settings.model
    for a, b in zip(again.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_and_checkpoints_can_be_chosen(folder: Path, run: TrainedRun) -> None:
    raw = lvae_torch.load_run(folder / "runs" / "small", weights="raw")
    early = lvae_torch.load_run(folder / "runs" / "small", checkpoint=4)
    assert (raw.is_averaged, early.step) == (False, 4)
    vectors = [torch.cat([p.flatten() for p in r.model.parameters()]) for r in (run, raw, early)]
    assert not torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_images_are_those_of_the_split(folder: Path, run: TrainedRun) -> None:
    x = run.images()
    assert x.shape == (17, 1, 8, 8) and set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(run.images("test", limit=3), x[[0, 8, 16]])
    assert run.images("train").shape[0] == 36
    with pytest.raises(DataError, match="no split 'valid'"):
        run.images("valid")


def test_latents_are_the_models_own(run: TrainedRun) -> None:
    """In parts of 5 as in one pass of 17."""
    x = run.images()
    with torch.no_grad():
        out = run.model(x, posterior_mean)
        shown = run.model(None, given_latents([latent.z for latent in out.latents]), 17).likelihood.mean()
    z = run.encode(x)
    assert [tuple(layer.shape[1:]) for layer in z] == list(run.latent_shapes)
    for ours, latent, q in zip(z, out.latents, run.posteriors(x), strict=True):
        assert_close(ours, latent.z)
        assert_close(q.mean, latent.encoded.mean)
    assert_close(run.decode(z), shown)
    assert_close(run.reconstruct(x, draw=False), shown)
    levels = run.decode(z, show="mode").unique()
    assert set(levels.tolist()) <= {0.0, 1.0}


def test_a_seed_makes_draws_repeatable_and_leaves_the_generator_alone(run: TrainedRun) -> None:
    x = run.images(limit=4)
    torch.manual_seed(7)
    expected = torch.randn(3)
    torch.manual_seed(7)
    first = run.sample(6, seed=1), run.encode(x, draw=True, seed=1)[0], run.log_likelihood(x, samples=2, seed=1)
    assert torch.equal(torch.randn(3), expected)
    again = run.sample(6, seed=1), run.encode(x, draw=True, seed=1)[0], run.log_likelihood(x, samples=2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(run.sample(6, seed=2), first[0])
    assert not torch.equal(run.sample(6), run.sample(6)), "without a seed, each call draws anew"


def test_temperatures_in_all_three_forms(run: TrainedRun) -> None:
    cold = run.sample(3, temperature=0.0)
    assert torch.equal(cold[0], cold[1]), "at temperature 0 nothing is drawn"
    assert torch.equal(run.sample(3, (0.4, 0.7), seed=1), run.sample(3, ("linear", 0.4, 0.7), seed=1))
    assert torch.equal(run.sample(3, (0.6, 0.6), seed=1), run.sample(3, 0.6, seed=1))
    with pytest.raises(CfgError, match="2 layers"):
        run.sample(3, (1.0, 1.0, 1.0))


def test_the_elbo_is_the_sum_of_its_terms_and_bounds_the_likelihood(run: TrainedRun) -> None:
    x = run.images(limit=5)
    terms = run.elbo(x, seed=3)
    assert terms.nll.shape == (5,) and terms.kl.shape == (5, 2)
    assert_close(terms.elbo, -terms.nll - terms.kl.sum(dim=1))
    torch.manual_seed(lvae_torch.distributed.seeding.seed_of("python", 3))
    with torch.no_grad():
        expected = elbo_terms(x, run.model(x, lvae_torch.models.sources.posterior_sample))
    assert_close(terms.nll, expected.nll)
    one = torch.stack([run.log_likelihood(x, samples=1, seed=k) for k in range(60)]).mean(dim=0)
    many = run.log_likelihood(x, samples=400, seed=0)
    assert many.dtype == torch.float64
    assert (many > one - 0.05).all() and many.mean() > one.mean()
    torch.manual_seed(lvae_torch.distributed.seeding.seed_of("python", 5))
    assert_close(run.log_likelihood(x, samples=3, seed=5), iw_bound(run.model, x, 3, run.settings.synthesis.chunk))


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (lambda x: (255 * x).to(torch.uint8), TypeError, "uint8.*pixels / 255"),
        (lambda x: x.numpy(), TypeError, "ndarray"),
        (lambda x: 255 * x, ValueError, r"0 to 255; scale them to \[0, 1\]"),
        (lambda x: x - 0.5, ValueError, "scale them"),
        (lambda x: x.masked_fill(x == 1, math.nan), ValueError, "nan"),
        (lambda x: x[0], ValueError, r"shape \(1, 8, 8\); small needs \(N, 1, 8, 8\)"),
        (lambda x: x[:, :, :7], ValueError, r"\(4, 1, 7, 8\)"),
        (lambda x: x.expand(-1, 3, -1, -1), ValueError, r"\(4, 3, 8, 8\)"),
        (lambda x: x[:0], ValueError, "N >= 1"),
    ],
)
def test_images_of_another_kind_are_refused(
    run: TrainedRun, spoil: Callable[[torch.Tensor], torch.Tensor], error: type[Exception], told: str
) -> None:
    for use in (run.encode, run.reconstruct, run.elbo, run.log_likelihood, run.posteriors):
        with pytest.raises(error, match=told):
            use(spoil(run.images(limit=4)))


def test_likelihoods_are_of_pixels_on_their_levels(run: TrainedRun) -> None:
    grey = run.images(limit=4) * 0.5
    assert len(run.encode(grey)) == 2
    for use in (run.elbo, run.log_likelihood):
        with pytest.raises(ValueError, match=r"between the 2 pixel levels of small; binarize them"):
            use(grey)


def test_latents_of_another_kind_are_refused(run: TrainedRun) -> None:
    z = run.encode(run.images(limit=4))
    for wrong in ([], z[:1], z[::-1], [z[0], z[1][:2]], [layer[:0] for layer in z], [z[0][:, :1], z[1]]):
        with pytest.raises(ValueError, match=r"small has .* top layer first"):
            run.decode(wrong)
    with pytest.raises(ValueError, match="use mean, mode or sample"):
        run.decode(z, show="median")  # type: ignore[arg-type]


def test_what_cannot_be_loaded_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CfgError, match="there is no such run, bundle, checkpoint"):
        lvae_torch.load_run("nothing", runs=tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "hparams.cfg").write_bytes((folder / "runs" / "small" / "hparams.cfg").read_bytes())
    with pytest.raises(DataError, match="no checkpoints there"):
        lvae_torch.load_run(bare)
    with pytest.raises(DataError, match="no checkpoint 3"):
        lvae_torch.load_run(folder / "runs" / "small", checkpoint=3)


def test_points_have_no_levels_to_be_on(tmp_path: Path) -> None:
    model = lvae_torch.build_model("vae", (2, 1, 1), 0, network="dense", widths=[8], z_dim=2, likelihood="gaussian")
    assert model.n_dims is None and model.latent_shapes() == ((2,),)


def test_models_are_built_by_name() -> None:
    model = lvae_torch.build_model("spatial_lvae", (1, 28, 28), levels=2, z_channels=[8, 4], downsample=[1, 1])
    assert [shape[0] for shape in model.latent_shapes()] == [4, 8]
    codes = lvae_torch.build_model("vqvae", (3, 8, 8), section={"levels": [3, 4]}, width=8)
    assert codes.latent_shapes() == ((1, 2, 2),)
    with pytest.raises(CfgError, match="Did you mean 'spatial_lvae'"):
        lvae_torch.build_model("spatial_vae", (1, 28, 28))
    with pytest.raises(CfgError, match=r"2 problems(.|\n)*dropout(.|\n)*z_channel"):
        lvae_torch.build_model("spatial_lvae", (1, 28, 28), z_channel=[8], dropout=2.0)
    with pytest.raises(CfgError, match="needs binary images"):
        lvae_torch.build_model("ladder", (1, 28, 28), levels=256)
