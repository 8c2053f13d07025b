"""Steps given in epochs, and the schedules that the Ladder VAE paper needs."""

from pathlib import Path

import pytest
import small

from lvae_torch.errors import CfgError
from lvae_torch.hparams import in_steps, load, to_cfg
from lvae_torch.train import train


def test_epochs_become_steps(tmp_path: Path) -> None:
    settings = small.settings(
        tmp_path,
        train__steps="20 epochs",
        train__checkpoint_every="1 epoch",
        val__every="2.5 epochs",
        loss__beta=("linear", "3 epochs"),
        optimizer__warmup_steps="0 epochs",
        optimizer__decay_steps="0.001 epochs",
    )
    resolved = in_steps(settings, steps_per_epoch=234)
    assert (resolved.train.steps, resolved.train.checkpoint_every, resolved.val.every) == (4680, 234, 585)
    assert resolved.loss.beta == ("linear", 702)
    assert (resolved.optimizer.warmup_steps, resolved.optimizer.decay_steps) == (0, 1)
    assert resolved.train.log_every == settings.train.log_every == 2
    assert in_steps(resolved, 99) == resolved


def test_epochs_survive_being_written(tmp_path: Path) -> None:
    settings = small.settings(tmp_path, train__steps="20 epochs", loss__beta=("linear", "3 epochs"))
    (tmp_path / "x.cfg").write_text(to_cfg(settings))
    assert load(tmp_path / "x.cfg") == settings


@pytest.mark.parametrize("wrong", ["epochs", "20", "-1 epochs", "20 epoch s", "1e3 epochs", "0 epochs", 0, -3])
def test_what_is_no_number_of_epochs_is_told(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(CfgError, match=r"\[train\] steps.*(needs a whole number of steps|must be)"):
        small.settings(tmp_path, train__steps=wrong)


def test_what_does_not_fit_is_told_once_it_is_known(tmp_path: Path) -> None:
    settings = small.settings(tmp_path, train__steps=100, optimizer__warmup_steps="20 epochs")
    in_steps(settings, 4)
    with pytest.raises(CfgError, match="warmup_steps = 100 takes all"):
        in_steps(settings, 5)


def test_a_run_in_epochs_ends_where_it_should_and_goes_on(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")  # 36 images, 4 steps of 8 an epoch
    for epochs, steps in (("2 epochs", 8), ("3 epochs", 12)):
        train(small.settings(tmp_path, train__steps=epochs, val__every="1 epoch"))
        saved = load(tmp_path / "runs" / "small" / "hparams.cfg")
        assert (saved.train.steps, saved.val.every) == (steps, 4)


def test_linear_holds_and_then_falls_to_the_end() -> None:
    rate = small.rate("linear", 100, learning_rate=1.0, final_learning_rate=0.2, decay_start=60)
    assert [rate(step) for step in (0, 59, 60)] == [1.0, 1.0, 1.0]
    assert rate(80) == pytest.approx(0.6)
    assert rate(100) == rate(200) == pytest.approx(0.2)


def test_the_staircase_falls_once_in_so_many_steps() -> None:
    """The paper's fine-tuning: x 0.75 every 200 epochs."""
    rate = small.rate("staircase", 1000, learning_rate=1e-3, decay_rate=0.75, decay_steps=200)
    assert [rate(step) for step in (0, 199)] == [1e-3, 1e-3]
    assert [rate(step) for step in (200, 399, 400)] == pytest.approx([7.5e-4, 7.5e-4, 5.625e-4])
