"""The same seed with another number of images begins with the same images; and what a result says of its making."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from lvae_torch.distributed.seeding import seed_of
from lvae_torch.distributions.codes import UniformCodes
from lvae_torch.distributions.noise import image_streams, integers_like, normal_like, uniform_like
from lvae_torch.files import read_json
from lvae_torch.models.sources import prior_sample
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

CPU = torch.device("cpu")
COLOUR = (3, 8, 8)
MAKERS: dict[str, Callable[[], Any]] = {
    "spatial_lvae": small.model,
    "efficient_vdvae": lambda: small.very_deep(COLOUR, 256),
    **small.SMALL,
}


def drawn(model: Any, seeds: list[int], draw: str) -> torch.Tensor:
    n_layers = len(model.latent_shapes())
    with torch.no_grad(), image_streams(seeds, CPU):
        likelihood = model.eval()(None, prior_sample([0.8] * n_layers), n=len(seeds)).likelihood
        return likelihood.mean() if draw == "mean" else likelihood.sample()


@pytest.mark.parametrize("draw", ["mean", "sample"])
@pytest.mark.parametrize("family", list(MAKERS))
def test_an_image_depends_on_its_own_stream(family: str, draw: str) -> None:
    model = MAKERS[family]()
    few, many = drawn(model, [3, 7], draw), drawn(model, [3, 7, 11, 5, 2], draw)
    assert torch.allclose(few, many[:2], atol=1e-5)
    assert torch.allclose(drawn(model, [5, 3], draw).flip(0), many[[0, 3]], atol=1e-5)
    assert not torch.allclose(many[0], many[1], atol=1e-3)


def test_streams_have_the_right_distributions_and_end() -> None:
    like, codes = torch.empty(2, 50_000), torch.zeros(2, 50_000, dtype=torch.int64)
    with image_streams([1, 2], CPU):
        normal, uniform, whole = normal_like(like), uniform_like(like), integers_like(codes, 5)
        assert UniformCodes(codes, 5).rsample().unique().tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(AssertionError, match="noise for 3 images from 2 streams"):
            normal_like(torch.empty(3, 1))
    assert normal.mean().abs() < 0.02 and abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean() - 0.5) < 0.01 and 0 <= uniform.min() <= uniform.max() < 1
    assert (whole.flatten().bincount() / 1e5 - 0.2).abs().max() < 0.01
    assert not torch.equal(normal[0], normal[1]) and normal_like(torch.empty(3, 1)).shape == (3, 1)
    torch.manual_seed(0)
    own = normal_like(torch.empty(4))
    torch.manual_seed(0)
    assert torch.equal(own, torch.randn(4)), "outside, torch's own generator is used as ever"


def generated(folder: Path, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    settings = small.settings(folder, **{f"synthesis__{key}": value for key, value in options.items()})
    synthesize(settings, ["generation"])
    out = folder / "runs" / "small" / "synthesis" / "generation"
    parts = [np.load(path, allow_pickle=False)["images"] for path in sorted(out.glob("part_*.npz"))]
    return np.concatenate(parts), read_json(out / "metrics.json")


def test_more_images_begin_with_the_same_ones(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=2))
    few, said = generated(tmp_path, n_images=3, seed=7)
    many, _ = generated(tmp_path, n_images=12, seed=7)
    parts, told = generated(tmp_path, n_images=9, seed=7, batch_size=4, draw="mean")
    assert (few == many[:3]).all() and (parts == many[:9]).all() and len(many) == 12
    assert (said["seed"], said["batch_size"], told["batch_size"]) == (7, 5, 4)
    assert not (generated(tmp_path, n_images=3, seed=8)[0] == few).all()
    run = small.opened(small.settings(tmp_path))
    assert torch.equal(run.sample(3, seed=1), run.sample(8, seed=1)[:3])
    assert seed_of("sample", 1, 0) != seed_of("sample", 1, 1)
