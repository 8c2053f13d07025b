"""Every example parses and builds, and those of published results have the published size."""

from pathlib import Path

import pytest

from lvae_torch.hparams import load, load_text, to_cfg
from lvae_torch.hparams.reference import reference
from lvae_torch.info import costs_per_image, describe, meta_model, shape_of_data

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((REPOSITORY / "egs").rglob("*.cfg"))
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


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path) -> None:
    settings = load(path, ["data.dumps=nowhere"])
    assert load_text(to_cfg(settings), "copy") == settings
    lines = path.read_text().splitlines()
    assert [line[:1] for line in lines[:3]] == ["#"] * 3
    assert lines[2].startswith("# Expect: ")
    assert settings.run.name == path.stem
    model = meta_model(settings, *shape_of_data(settings))
    if path.stem in PARAMETERS:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PARAMETERS[path.stem]


def test_every_published_result_has_an_example() -> None:
    assert set(PARAMETERS) <= {path.stem for path in EXAMPLES}


def test_top_maps_are_2x2_as_published() -> None:
    for name in PARAMETERS:
        settings = load(REPOSITORY / "egs" / "spatial_lvae" / f"{name}.cfg", ["data.dumps=nowhere"])
        assert meta_model(settings, *shape_of_data(settings)).latent_shapes()[0] == (32, 2, 2), name


def test_costs_are_those_of_the_convolutions() -> None:
    """1.04 GFLOP forward and three times that for a step: counted independently for the 3-layer MNIST model."""
    settings = load(REPOSITORY / "egs" / "spatial_lvae" / "static_mnist_3.cfg", ["data.dumps=nowhere"])
    shape, levels = shape_of_data(settings)
    costs = costs_per_image(meta_model(settings, shape, levels), shape)
    assert costs.forward_flops == pytest.approx(1.04e9, rel=0.01)
    assert costs.train_flops == pytest.approx(3.1e9, rel=0.02)
    assert 10e6 < costs.saved_bytes < 20e6


def test_info_shows_what_a_reader_asks_for() -> None:
    text = describe(load(REPOSITORY / "egs" / "spatial_lvae" / "static_mnist_12.cfg", ["data.dumps=nowhere"]))
    for needed in ("11,607,809", "32 x 2 x 2", "GFLOP per image", "GiB"):
        assert needed in text


def test_the_page_of_settings_is_up_to_date() -> None:
    """``python -m lvae_torch.hparams > docs/settings.md``"""
    assert (REPOSITORY / "docs" / "settings.md").read_text() == reference()
