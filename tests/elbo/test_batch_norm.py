"""Batch norm statistics taken anew, and what they leave behind."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from steps import HostReads
from torch import Tensor, nn

import lvae_torch
from lvae_torch import TrainedRun
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.elbo.batch_norm import estimate, kept_statistics
from lvae_torch.files import read_json
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train


def test_the_statistics_are_the_means_over_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4)).eval()
    batches = [torch.randn(10, 3) for _ in range(5)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with kept_statistics(model):
        estimate(model, (partial(model, x) for x in batches))
        hidden = [model[0](x) for x in batches]
        assert torch.allclose(model[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-6)
        assert torch.allclose(model[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-6)
        # The second norm saw what the first gave in training: each batch normalised by itself.
        inner = [torch.relu((h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()) for h in hidden]
        assert torch.allclose(model[3].running_mean, torch.stack([h.mean(0) for h in inner]).mean(0), atol=1e-5)
        assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.1


def test_no_value_is_read_but_at_the_end() -> None:
    """The host of a card would wait for it, once in every layer and pass."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4)).eval()
    with HostReads(set()) as reads:
        estimate(model, (partial(model, torch.randn(10, 4)) for _ in range(5)))
    assert reads.count == 0


def test_a_model_without_batch_norm_is_left_alone() -> None:
    passes = iter([lambda: None])
    estimate(nn.Linear(2, 2), passes)
    assert next(passes, None) is not None, "nothing was run for nothing"


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_choice_reaches_the_evaluation_of_training_and_of_inference(tmp_path: Path, ema_decay: float) -> None:
    """After few steps, statistics that trail and those of the weights themselves are far apart."""
    small.write_dump(tmp_path / "dumps")
    found = {}
    for choice in ("running", "reestimated"):
        settings = small.settings(
            tmp_path, run__name=choice, val__batch_norm=choice, loss__beta=1.0, train__ema_decay=ema_decay
        )
        train(settings)
        synthesize(settings, ["reconstruction"])
        folder = tmp_path / "runs" / choice
        last = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "val/nelbo" in line][-1]
        again = read_json(folder / "synthesis" / "reconstruction" / "metrics.json")
        found[choice] = (json.loads(last)["val/kl/00"], again["kl_per_layer"][0])
    for trailing, anew in zip(found["running"], found["reestimated"], strict=True):
        assert abs(trailing - anew) > 1e-3 * abs(trailing)


def test_one_image_left_over_is_no_batch(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    limits = {"data__limit_train": 9, "train__batch_size": 4}
    train(small.settings(tmp_path, val__batch_norm="reestimated", **limits))


@pytest.mark.parametrize("choice", ["running", "reestimated"])
def test_training_and_inference_evaluate_alike(tmp_path: Path, choice: str) -> None:
    small.write_dump(tmp_path / "dumps")
    settings = small.settings(tmp_path, val__batch_norm=choice, loss__beta=1.0, train__ema_decay=0.5)
    train(settings)
    logged = [
        line for line in (tmp_path / "runs" / "small" / "metrics.jsonl").read_text().splitlines() if "val/nelbo" in line
    ]

    last = json.loads(logged[-1])
    synthesize(settings, ["reconstruction"])
    again = read_json(tmp_path / "runs" / "small" / "synthesis" / "reconstruction" / "metrics.json")
    # Another posterior sample, but the same weights, statistics and images: KL in closed form at the top is equal.
    assert again["kl_per_layer"][0] == pytest.approx(last["val/kl/00"], rel=1e-5)
    checkpoints = {}
    for other in ("running", "reestimated"):
        folder = tmp_path / other
        small.write_dump(folder / "dumps")
        train(small.settings(folder, val__batch_norm=other, loss__beta=1.0, train__ema_decay=0.5))
        path = next((folder / "runs" / "small" / "checkpoints").glob("step_*6.pt"))
        checkpoints[other] = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(checkpoints["running"][k], v) for k, v in checkpoints["reestimated"].items())
    assert np.isfinite(again["nelbo"])


def statistics(run: TrainedRun) -> dict[str, Tensor]:
    return {name: value for name, value in run.model.state_dict().items() if "running_" in name}


def are_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a and a.keys() == b.keys()
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.fixture(scope="module")
def reestimated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates with statistics taken anew, and dumps of other images, also of another shape."""
    folder = tmp_path_factory.mktemp("reestimated")
    small.write_dump(folder / "dumps")
    small.write_dump(folder / "dumps", "others", n_train=20)
    with DumpWriter(folder / "dumps", "wide", Layout((3, 6, 6), 256), {"source": "made by a test"}) as writer:
        for split in ("train", "test"):
            writer.add(split, np.zeros((9, 6, 6, 3), dtype=np.uint8))
    train(small.settings(folder, val__batch_norm="reestimated", train__ema_decay=0.5))
    return folder


@pytest.mark.parametrize("other", ["data.dataset=others", "data.dataset=wide", "data.limit_train=9"])
def test_the_statistics_are_of_the_images_of_the_training_whatever_is_scored(reestimated: Path, other: str) -> None:
    place = reestimated / "runs" / "small"
    own, trailing = lvae_torch.load_run(place), lvae_torch.load_run(place, settings=["val.batch_norm=running"])
    assert not are_equal(statistics(own), statistics(trailing))
    run = lvae_torch.load_run(place, settings=[other])
    assert are_equal(statistics(run), statistics(own))
    assert run.settings.val.batch_norm == "reestimated"


@pytest.mark.parametrize("there", [None, "others", "wide"])
def test_other_images_under_the_name_of_the_datasets_give_none(
    reestimated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str | None
) -> None:
    """What is kept then is told, and stands beside the results."""
    place, dumps = reestimated / "runs" / "small", tmp_path / "dumps"
    if there is not None:
        shutil.copytree(reestimated / "dumps" / there, dumps / "small")
    trailing = lvae_torch.load_run(place, settings=["val.batch_norm=running"])
    capsys.readouterr()
    run = lvae_torch.load_run(place, settings=[f"data.dumps={str(dumps)!r}"])
    assert are_equal(statistics(run), statistics(trailing))
    assert run.settings.val.batch_norm == "running"
    told = capsys.readouterr().err
    assert f"{dumps / 'small'}: " in told and "statistics that trailed the training" in told
