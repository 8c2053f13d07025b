"""Codes and their prior as two runs: every mode of both, the dump of codes between them, and what is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from two_stages import CODES, IMAGES, logged, out, results, run_ranks, settings, write_colours

import lvae_torch
from lvae_torch.data.dump import Dump
from lvae_torch.elbo.bounds import code_usage
from lvae_torch.errors import CfgError, DataError
from lvae_torch.models.sources import given_latents, posterior_sample, prior_sample
from lvae_torch.synthesis.codes import check_prior, code_grid
from lvae_torch.synthesis.modes import MODES
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

LATENT = """[model]
family = ladder
z_dims = [4, 3]
widths = [8, 6]
likelihood = discretized_logistic
[optimizer]"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, a few steps each."""
    folder = tmp_path_factory.mktemp("stages")
    write_colours(folder)
    train(settings(folder, IMAGES))
    synthesize(settings(folder, IMAGES), ["encoding"])
    train(settings(folder, CODES))
    return folder


def model_of(folder: Path, cfg: str) -> Any:
    given = settings(folder, cfg)
    return small.opened(given).model


def test_the_dump_holds_the_codes_of_both_splits(trained: Path) -> None:
    dump, model = Dump.open(trained / "dumps", "codes"), model_of(trained, IMAGES)
    assert (dump.image_shape, dump.n_levels, dump.layout.dtype) == ((1, 2, 3), 6, "uint8")
    assert dump.counts == {"train": 30, "test": 17}  # [data] limit_train
    pictures = Dump.open(trained / "dumps", "colours")
    for split, n in dump.counts.items():
        x = pictures.split(split).gather(np.arange(n)).permute(0, 3, 1, 2).float() / 255
        codes = dump.split(split).gather(np.arange(n)).permute(0, 3, 1, 2)
        with torch.no_grad():
            encoded, decoded = model(x, posterior_sample), model(None, given_latents([codes]), n=n)
        assert torch.equal(encoded.latents[0].z, codes)
        assert torch.equal(encoded.likelihood.mean(), decoded.likelihood.mean())
        labels, expected = dump.labels(split), pictures.labels(split)
        assert labels is not None and expected is not None
        assert np.array_equal(labels, expected[:n])


def test_the_terms_are_told_apart(trained: Path) -> None:
    told = logged(trained, "images")
    terms = told["train/nll"] + told["train/penalty/codebook"] + told["train/penalty/commitment"]
    assert told["train/loss"] == pytest.approx(terms / (3 * 8 * 12), rel=1e-5)
    assert told["train/kl"] == pytest.approx(6 * np.log(6), rel=1e-5)
    assert "val/bpd" not in told
    for part in ("train", "val"):
        assert 1 <= told[f"{part}/perplexity/00"] <= 6
        assert 0 < told[f"{part}/used_fraction/00"] <= 1


def test_the_summary_has_a_line_for_each(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    for cfg, needed in ((IMAGES, ("codebook + ", "perplexity/00")), (CODES, ("bits/dim", "per dimension"))):
        train(settings(folder, cfg, train__steps=7))
        printed = capsys.readouterr().out
        assert all(text in printed for text in needed)


def test_the_summary_of_a_prior_tells_what_codes_come_to(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bits per dimension of the images, whose own likelihood here has none."""
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    train(settings(folder, CODES, train__steps=7))
    spent = logged(folder, "codes")["val/nelbo"] / (3 * 8 * 12 * np.log(2))
    assert f"{spent:.4f} bits per dimension of the images they stand for" in capsys.readouterr().out


def test_usage_is_that_of_the_whole_split(trained: Path) -> None:
    codes = Dump.open(trained / "dumps", "codes").split("test").gather(np.arange(17)).flatten().long()
    expected = code_usage({0: torch.bincount(codes, minlength=6).double()})
    told = logged(trained, "images")
    for name, value in expected.items():
        assert told[f"val/{name}"] == pytest.approx(value.item(), rel=1e-9), name


def test_a_prior_reports_exact_nats_and_bits(trained: Path) -> None:
    told = logged(trained, "codes")
    assert told["val/nelbo"] == told["val/nll"]
    assert told["val/nats_per_dim"] == pytest.approx(told["val/nelbo"] / 6)
    assert told["val/bpd"] == pytest.approx(told["val/nelbo"] / (6 * np.log(2)))
    bound = results(trained, CODES, "likelihood")["nll_bound"]
    assert bound == pytest.approx(told["val/nelbo"], rel=1e-5)


# A squared error codes nothing, and sample_quality needs a file of weights (test_sample_quality.py).
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("compression", "sample_quality")])
def test_every_mode_of_the_codes(trained: Path, mode: str) -> None:
    metrics = results(trained, IMAGES, mode, synthesis__codes_to=None)
    assert metrics["mode"] == mode
    assert not {"bits_per_dim", "iw_bpd"} & metrics.keys()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "sample_quality"])
def test_every_mode_of_the_prior(trained: Path, mode: str) -> None:
    if mode in ("encoding", "decoding", "interpolation", "layer_inspection", "div_stats", "progressive"):
        with pytest.raises(CfgError, match=r"no latents"):
            results(trained, CODES, mode)
    else:
        assert results(trained, CODES, mode)["mode"] == mode


def test_decoded_encodings_are_the_reconstructions(trained: Path) -> None:
    results(trained, IMAGES, "encoding", synthesis__codes_to=None)
    results(trained, IMAGES, "decoding")
    images = np.concatenate([read_part(p)["images"] for p in sorted(out(trained, "images", "decoding").glob("part_*"))])
    x = Dump.open(trained / "dumps", "colours").split("test").gather(np.arange(17)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        shown = model_of(trained, IMAGES)(x, posterior_sample).likelihood.mean()
    assert np.abs(images - shown.permute(0, 2, 3, 1).numpy() * 255).max() <= 0.51


def test_images_are_drawn_from_the_prior_runs_codes(trained: Path) -> None:
    metrics = results(trained, IMAGES, "generation", synthesis__prior_run="codes", synthesis__temperature=0)
    assert (metrics["prior_run"], metrics["prior_step"]) == ("codes", 6)
    cold = [read_part(p)["images"] for p in sorted(out(trained, "images", "generation").glob("part_*"))]
    assert sum(map(len, cold)) == 7
    assert (cold[0] == cold[0][:1]).all(), "at temperature 0 every draw is the likeliest"
    metrics = results(trained, IMAGES, "generation")
    assert metrics["prior"].startswith("uniform")
    warm = [read_part(p)["images"] for p in sorted(out(trained, "images", "generation").glob("part_*"))]
    assert not (warm[0] == warm[0][:1]).all()


def test_an_interrupted_dump_of_codes_is_continued(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Dump.open(trained / "dumps", "codes").content_hash
    codes = out(trained, "images", "encoding") / "codes" / "train"
    results(trained, IMAGES, "encoding")
    written = {path: path.stat().st_mtime_ns for path in codes.glob("part_*")}
    assert len(written) == 6
    lost = sorted(written)[2]
    lost.unlink()
    results(trained, IMAGES, "encoding")
    assert [path for path in sorted(written) if path.stat().st_mtime_ns != written[path]] == [lost]
    assert Dump.open(trained / "dumps", "codes").content_hash == before


@pytest.mark.slow
def test_two_ranks_write_the_same_dump(trained: Path) -> None:
    before = Dump.open(trained / "dumps", "codes").content_hash
    run_ranks(trained, "lvae_torch.synthesize", IMAGES, ["--mode", "encoding", "--set", "synthesis.batch_size=4"])
    after = Dump.open(trained / "dumps", "codes")
    assert after.content_hash == before
    after.verify()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"synthesis__prior_run": "nobody"}, "there is no such run, bundle, checkpoint"),
        ({"synthesis__prior_run": "images"}, r"prior_run = images: it draws 3x8x12 of 256 codes, but run images dec"),
        ({"synthesis__prior_run": "codes", "synthesis__checkpoint": "4"}, "at step 6 .* this is run images at step 4"),
    ],
)
def test_a_prior_of_something_else_is_refused(trained: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises((CfgError, DataError), match=message):
        results(trained, IMAGES, "generation", **overrides)


def test_a_missing_dump_of_codes_says_which_run_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lvae synthesize vqvae_svhn --mode encoding"):
        Dump.open(tmp_path, "vqvae_svhn_codes")


def test_a_dump_of_images_is_not_overwritten_with_codes(trained: Path) -> None:
    with pytest.raises(CfgError, match="holds images; choose a name of its own"):
        results(trained, IMAGES, "encoding", synthesis__codes_to="colours")


def test_latents_that_are_no_codes_are_refused(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=1))
    for mode, key in (("encoding", "codes_to"), ("generation", "prior_run")):
        with pytest.raises(CfgError, match=f"{key} = small: the latents of run small are no codes"):
            synthesize(small.settings(tmp_path, **{f"synthesis__{key}": "small"}), [mode])


def test_many_codes_take_two_bytes(tmp_path: Path) -> None:
    write_colours(tmp_path)
    many = {"model__n_codes": 300, "train__steps": 1}
    train(settings(tmp_path, IMAGES, **many))
    results(tmp_path, IMAGES, "encoding", **many)
    dump = Dump.open(tmp_path / "dumps", "codes")
    assert (dump.n_levels, dump.layout.dtype) == (300, "uint16")
    train(settings(tmp_path, CODES, train__steps=1))


def test_a_prior_with_latents_draws_codes_too(trained: Path) -> None:
    """Its latents have the temperature of the codes."""
    latent = re.sub(r"\[model\].*?\[optimizer\]", LATENT, CODES, flags=re.DOTALL)
    train(settings(trained, latent, run__name="deep"))
    metrics = results(trained, IMAGES, "generation", synthesis__prior_run="deep", synthesis__temperature=0)
    assert (metrics["prior_run"], metrics["n_images"]) == ("deep", 7)
    run = lvae_torch.load_run("images", runs=trained / "runs", device="cpu", prior="deep")
    assert run.prior is not None
    for temperature in (0.0, 0.7):
        torch.manual_seed(0)
        with torch.no_grad():
            likelihood = run.prior.model(None, prior_sample([temperature] * 2), n=3).likelihood
        codes = (5 * likelihood.sample(temperature=temperature or 1e-3)).round().long()
        torch.manual_seed(0)
        assert torch.equal(run.draw(3, temperature=temperature)[0], codes)


def test_a_prior_of_classes_is_refused() -> None:
    """Nothing says of which class its codes shall be."""
    model = small.vqvae().eval()
    shape, n_codes = code_grid(model) or ((0, 0, 0), 0)
    check_prior(model, "images", "codes", shape, n_codes, ())
    with pytest.raises(CfgError, match=r"prior_run = codes: .* class-conditional .*cat, dog"):
        check_prior(model, "images", "codes", shape, n_codes, ("cat", "dog"))
