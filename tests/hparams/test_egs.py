"""Every example parses and builds, and those of published results have the published size."""

import re
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from efficient_vdvae_cases import PUBLISHED
from torch import Tensor, nn

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.hparams import load, load_text, to_cfg
from lvae_torch.hparams.reference import reference
from lvae_torch.info import describe, meta_model, shape_of_data
from lvae_torch.interop.efficient_vdvae import section_from_reference
from lvae_torch.interop.vdvae import section_from_reference as section_from_hparams
from lvae_torch.interop.vdvae_cfg import native_sections
from lvae_torch.interop.vdvae_presets import PRESETS
from lvae_torch.models.contract import Latent, Output, Source
from lvae_torch.models.rematerialization import rematerialize
from lvae_torch.synthesis.modes import MODES
from lvae_torch.training.costs import flops_per_image, kept_for_backward
from lvae_torch.training.optimizers import OPTIMIZERS
from lvae_torch.training.schedules import SCHEDULES

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (REPOSITORY / "egs").rglob("*.cfg") if path.name != "hparams.cfg")
PARAMETERS = {
    "static_mnist_3": 3_209_153,
    "static_mnist_6": 6_008_705,
    "static_mnist_12": 11_607_809,
    "cifar10_3": 3_269_476,
    "cifar10_6": 6_069_028,
    "cifar10_15": 14_467_684,
    "svhn_15": 14_467_684,
    "multi_dsprites_12": 11_686_019,
    "celeba64_20": 19_207_460,
}
"""As the original implementation counts them (measured on it)."""


LADDER = {
    # data: rungs from the bottom, widths, epochs, warm-up, rate, nonlinearity
    "mnist": ([64, 32, 16, 8, 4], [512, 256, 128, 64, 32], 250, 25, 1e-3, "leakyrelu"),
    "omniglot": ([64, 32, 16, 8, 4], [512, 256, 128, 64, 32], 200, 20, 1e-3, "leakyrelu"),
    "norb": ([64, 32, 16, 8, 4], [512, 256, 128, 64, 32], 4000, 1000, 2e-3, "tanh"),
}
VARIANTS = {  # family, batch norm, warm-up
    "vae": ("hierarchical_vae", False, False),
    "vae_bn": ("hierarchical_vae", True, False),
    "vae_bn_wu": ("hierarchical_vae", True, True),
    "lvae": ("ladder", True, True),
}


@pytest.mark.parametrize("data", LADDER)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ladder_papers_grid(data: str, variant: str) -> None:
    """1 to 5 rungs, dropped from the top; MNIST and OMNIGLOT at about an eighth of the paper's epochs."""
    z_dims, widths, epochs, warmup, rate, nonlinearity = LADDER[data]
    family, batch_norm, has_warmup = VARIANTS[variant]
    paths = sorted((REPOSITORY / "egs" / "ladder").glob(f"{data}_{variant}_[1-5].cfg"))
    assert len(paths) >= 4
    for path in paths:
        settings, n = load(path, ["data.dumps=nowhere"]), int(path.stem[-1])
        model, train = settings.model, settings.train
        assert (model.family, model.batch_norm, model.nonlinearity) == (family, batch_norm, nonlinearity), path
        assert (list(model.z_dims), list(model.widths)) == (z_dims[:n], widths[:n]), path
        assert (train.steps, train.batch_size) == (f"{epochs} epochs", 256), path
        assert settings.loss.beta == (("linear", f"{warmup} epochs") if has_warmup else 1.0), path
        assert (settings.optimizer.learning_rate, settings.loss.kl_estimate) == (rate, "sampled"), path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path) -> None:
    settings = load(path, ["data.dumps=nowhere"])
    assert load_text(to_cfg(settings), "copy") == settings
    lines = path.read_text().splitlines()
    assert [line[:1] for line in lines[:3]] == ["#"] * 3
    assert lines[2].startswith("# Expect: ")
    assert settings.run.name == path.stem
    model = meta_model(settings, *shape_of_data(settings), 10 if settings.model.is_conditional else 0)
    if path.stem in PARAMETERS:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PARAMETERS[path.stem]
    if (preset := PRESETS.get(path.stem.removeprefix("vdvae_"))) is not None:
        expected = native_sections(preset.hparams, preset.gpus)
        expected["train"]["steps"] = preset.steps
        for section, keys in expected.items():
            assert {key: getattr(getattr(settings, section), key) for key in keys} == keys
        assert settings.model == section_from_hparams(preset.hparams)
        assert sum(p.numel() for p in model.parameters()) == preset.n_parameters
    if path.stem in PUBLISHED:
        published = PUBLISHED[path.stem]
        assert settings.model == section_from_reference(published.model, published.data, published.loss)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == published.millions
        shapes = model.latent_shapes()
        assert (len(shapes), sum(map(prod, shapes))) == (published.layers, published.latents)


def test_every_published_result_has_an_example() -> None:
    presets = {f"vdvae_{name}" for name in PRESETS}
    assert set(PARAMETERS) | set(PUBLISHED) | presets <= {path.stem for path in EXAMPLES}


def test_top_maps_are_2x2_as_published() -> None:
    for name in PARAMETERS:
        settings = load(REPOSITORY / "egs" / "spatial_lvae" / f"{name}.cfg", ["data.dumps=nowhere"])
        assert meta_model(settings, *shape_of_data(settings)).latent_shapes()[0] == (32, 2, 2), name


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_bounds_are_of_the_dataset_that_they_are_told_of(name: str) -> None:
    """docs/datasets.md has the published numbers beside each dump; what a cfg expects stands there with its dump."""
    path = REPOSITORY / "egs" / "spatial_lvae" / f"{name}.cfg"
    expected = re.search(r"# Expect: .*?(\d+\.\d+)", path.read_text())
    rows = (REPOSITORY / "docs" / "datasets.md").read_text().splitlines()
    dataset = load(path, ["data.dumps=nowhere"]).data.dataset
    (row,) = [row for row in rows if row.startswith(f"| `{dataset}`")]
    assert expected is not None and expected[1] in row.rpartition(" spatial LVAE ")[2]


def test_costs_are_those_of_the_convolutions() -> None:
    """1.04 GFLOP forward and three times that for a step: counted independently for the 3-layer MNIST model."""
    settings = load(REPOSITORY / "egs" / "spatial_lvae" / "static_mnist_3.cfg", ["data.dumps=nowhere"])
    shape, levels = shape_of_data(settings)
    forward, training = flops_per_image(meta_model(settings, shape, levels), shape)
    assert forward == pytest.approx(1.04e9, rel=0.01)
    assert training == pytest.approx(3.1e9, rel=0.02)


def test_kept_memory_is_that_of_the_tensors_that_autograd_saves() -> None:
    """The input of the block, 100 floats, and inside it what tanh gives, 200; the loss keeps single numbers only."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(300, 100)
            self.block = nn.Sequential(nn.Linear(100, 200), nn.Tanh(), nn.Linear(200, 1))

        def rematerialize(self) -> None:
            rematerialize(self, nn.Sequential)

        def of_any_class(self, source: Source, n: int) -> Source:
            return source

        def forward(self, x: Tensor, source: Source) -> Output:
            h = self.block(self.stem(x.flatten(1)))
            zero = h * 0
            likelihood: Any = SimpleNamespace(log_prob=lambda x: h.flatten())
            return Output(likelihood, (Latent(zero, DiagonalGaussian(zero, zero), DiagonalGaussian(zero, zero)),))

    kept = kept_for_backward(Model, (3, 10, 10))
    few = 30 * 4  # of single numbers
    assert 300 * 4 <= kept[False, "float32"] <= 300 * 4 + few  # the image is given, not made
    assert 100 * 4 <= kept[True, "float32"] <= 100 * 4 + few
    assert 300 * 2 <= kept[False, "bfloat16"] < kept[False, "float32"] + 300 * 2  # and the image in half precision


def test_info_shows_what_a_reader_asks_for() -> None:
    text = describe(load(REPOSITORY / "egs" / "spatial_lvae" / "static_mnist_3.cfg", ["data.dumps=nowhere"]))
    for needed in ("3,209,153", "32 x 2 x 2", "GFLOP per image", "GiB"):
        assert needed in text


def test_the_page_of_settings_names_what_may_be_chosen() -> None:
    """Of a table, of a Literal, and of lists of either; of what is not chosen from a few, nothing."""
    rows = dict(line[2:].split("` |", 1) for line in reference().splitlines() if line.startswith("| `"))
    for key, told in {
        "`name": f" One of {', '.join(f'`{name}`' for name in OPTIMIZERS)}. |",
        "`schedule": f" One of {', '.join(f'`{name}`' for name in SCHEDULES)}. |",
        "`mode": f" One of {', '.join(f'`{name}`' for name in MODES)}. |",
        "`draw": " One of `mean`, `sample`, `mode`. |",
        "`balance": " One of `none`, `kl_per_unit`, `kl`. |",
        "`trackers": " One of `tensorboard`, `wandb`, `mlflow`. |",
    }.items():
        assert rows[key].endswith(told), key
    for key in ("`beta", "`seed", "`temperature", "`family", "`std"):
        assert "One of" not in rows[key], key


def test_the_page_of_settings_is_up_to_date() -> None:
    """``python -m lvae_torch.hparams > docs/settings.md``"""
    assert (REPOSITORY / "docs" / "settings.md").read_text() == reference()
