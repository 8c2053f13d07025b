"""Runs that are asked for something else than before: taken over, refused, or begun anew; never silently wrong."""

from pathlib import Path
from typing import Any

import pytest
import small
import torch

from lvae_torch.errors import CfgError, DataError, NumericalError
from lvae_torch.files import read_json
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train


def store(folder: Path, name: str = "small") -> CheckpointStore:
    return CheckpointStore(folder / "runs" / name / "checkpoints")


def test_fewer_steps_than_taken_are_refused_and_harm_nothing(folder: Path) -> None:
    train(small.settings(folder, train__steps=6))
    with pytest.raises(CfgError, match=r"steps = 4, but this run has taken 6 already"):
        train(small.settings(folder, train__steps=4))
    assert store(folder).load("last")["state"]["step"] == 6


def test_changed_betas_and_decay_take_effect(folder: Path) -> None:
    """The resumed steps are those of an optimizer that was made with them."""
    train(small.settings(folder, train__steps=2, optimizer__name="adamw"))
    train(small.settings(folder, train__steps=3, optimizer__name="adamw", optimizer__weight_decay=0.5,
                         optimizer__betas=[0.5, 0.9], optimizer__eps=1e-3))  # fmt: skip
    group = store(folder).load("last")["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], list(group["betas"]), group["eps"]) == (0.5, [0.5, 0.9], 1e-3)


def test_a_checkpoint_of_a_gpu_continues_on_a_cpu(folder: Path) -> None:
    train(small.settings(folder, train__steps=2))
    checkpoint = store(folder).load("last")
    checkpoint["optimizer"]["param_groups"][0]["capturable"] = True
    saved = store(folder)
    saved.save(2, checkpoint)
    saved.wait()
    train(small.settings(folder, train__steps=3))
    assert store(folder).load("last")["state"]["step"] == 3


def test_a_cfg_that_was_refused_does_not_hold_the_name(folder: Path) -> None:
    with pytest.raises(CfgError):
        train(small.settings(folder, model__blocks_per_layer=5, model__downsample=[5, 5]))
    train(small.settings(folder, train__steps=2))
    assert store(folder).load("last")["state"]["step"] == 2


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    train(small.settings(folder, train__steps=2))
    train(small.settings(folder, train__steps=2, run__name="other", model__n_filters=8))
    for path in (folder / "runs" / "small" / "checkpoints").iterdir():
        path.unlink()
    for path in (folder / "runs" / "other" / "checkpoints").iterdir():
        path.rename(folder / "runs" / "small" / "checkpoints" / path.name)
    with pytest.raises(DataError, match=r"small/checkpoints: trained with another \[model\]"):
        train(small.settings(folder, train__steps=4))


def test_a_run_begins_with_the_weights_of_another(folder: Path) -> None:
    train(small.settings(folder, train__steps=2, train__ema_decay=0.5))
    given = store(folder).load("last")["ema"]
    checkpoints = folder / "runs" / "next" / "checkpoints"
    checkpoints.mkdir(parents=True)  # as a kill during the first save leaves it
    more = {"run__name": "next", "train__initial_run": "small", "optimizer__learning_rate": 1e-12}
    train(small.settings(folder, train__steps=1, **more))
    begun = store(folder, "next").load("last")["model"]
    weights = [name for name, value in given.items() if value.is_floating_point() and "running" not in name]
    assert all(torch.allclose(begun[name], given[name], atol=1e-6) for name in weights)
    train(small.settings(folder, train__steps=3, **more))  # goes on from its own
    assert store(folder, "next").load("last")["state"]["step"] == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"train__initial_run": "missing"}, r"initial_run = missing: .*missing: no checkpoints there"),
        (
            {"train__initial_run": "small", "model__n_filters": 8},
            r"small: trained with another .*initial_run = small",
        ),
        ({"train__initial_run": "small", "data__dataset": "grey"}, r"initial_run = small: that run's images"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, wrong: dict[str, Any], told: str) -> None:
    small.write_dump(folder / "dumps", "grey", n_levels=256)
    gaussian = {"model__likelihood": "gaussian"}
    train(small.settings(folder, train__steps=2, **gaussian))
    with pytest.raises((CfgError, DataError), match=told):
        train(small.settings(folder, run__name="next", **gaussian, **wrong))


def test_results_of_other_preprocessing_are_not_reused(folder: Path) -> None:
    small.write_dump(folder / "dumps", "grey", n_levels=256)
    found = {}
    train(small.settings(folder, train__steps=2, data__dataset="grey", data__binarize="threshold"))
    for binarize in ("threshold", "dynamic", "threshold"):
        settings = small.settings(folder, data__dataset="grey", data__binarize=binarize)
        synthesize(settings, ["likelihood"])
        metrics = read_json(folder / "runs" / "small" / "synthesis" / "likelihood" / "metrics.json")
        found.setdefault(binarize, []).append(metrics["preprocessing"])
    assert found["threshold"][0] == found["threshold"][1] != found["dynamic"][0]


def test_levels_that_the_model_was_not_trained_on_are_refused(folder: Path) -> None:
    train(small.settings(folder, train__steps=2))
    small.write_dump(folder / "dumps", n_levels=256)
    with pytest.raises(DataError, match="256 levels after"):
        synthesize(small.settings(folder), ["reconstruction"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"data__dequantize": True}, r"dequantize: the likelihood of \[model\], bernoulli, is of levels"),
        ({"data__n_bits": 5}, "n_bits = 5: small has 2 levels"),
        ({"data__dequantize": True, "data__binarize": "threshold"}, "exclude each other"),
    ],
)
def test_preprocessing_without_an_effect_is_refused(folder: Path, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(CfgError, match=told):
        train(small.settings(folder, **wrong))


def test_numbers_that_are_none_are_shown_and_survived(folder: Path) -> None:
    """A diverged model is evaluated, logged and drawn; the error is the user's, not a traceback."""
    with pytest.raises(NumericalError, match=r"the last evaluation is not finite"):
        train(
            small.settings(
                folder, train__steps=2, optimizer__learning_rate=1e9, model__max_log_std=None, loss__beta=1.0
            )
        )
    assert read_json(folder / "runs" / "small" / "status.json")["state"] == "failed"
    for path in (folder / "runs" / "small" / "checkpoints").iterdir():
        path.rename(path.with_name(path.name.removesuffix(".aside")))  # nobody uses such weights by accident
    synthesize(small.settings(folder, model__max_log_std=None), ["analysis"])
    assert (folder / "runs" / "small" / "synthesis" / "analysis" / "kl_units.png").is_file()


def test_an_evaluation_after_a_restart_is_saved_at_once(folder: Path) -> None:
    train(small.settings(folder, train__steps=2, val__every=0))
    first = (folder / "runs" / "small" / "metrics.jsonl").read_text().count('"val/nelbo"')
    # More steps make the restored step no longer the last; an evaluation that is due there must not be repeated.
    train(small.settings(folder, train__steps=4, val__every=2))
    text = (folder / "runs" / "small" / "metrics.jsonl").read_text()
    assert (first, text.count('"val/nelbo"')) == (1, 2)


def test_a_damaged_newest_checkpoint_names_the_others(folder: Path) -> None:
    train(small.settings(folder, train__steps=4))
    newest = folder / "runs" / "small" / "checkpoints" / "step_00000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"Use another one \(3\), or repeat the training command"):
        synthesize(small.settings(folder), ["reconstruction"])
