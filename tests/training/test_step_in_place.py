"""A step is a function of tensors that stay where they are, so that a device can replay it."""

from typing import Any

import pytest
import small
import steps
from torch import Tensor

from lvae_torch.distributed.graph import Graphed
from lvae_torch.training.ema import Ema


def homes(step: Any) -> dict[str, int]:
    """Where the tensors of a step lie, by their owners' attributes, and which objects the owners hold."""
    owners = {"meter": step.meter, "step": step, "flat": step.flat, "ema": step.ema, "emas": step.ema.flat}
    found = {f"{name}.{key}": id(value) for name, owner in owners.items() for key, value in vars(owner).items()}
    tensors = {f"{name}.{key}": value for name, owner in owners.items() for key, value in vars(owner).items()}
    tensors |= {f"optimizer.{key}": value for key, value in step.optimizer.state[step.flat.vector].items()}
    tensors |= dict(step.bare.state_dict(keep_vars=True)) | {"gradient": step.flat.gradient}
    return found | {f"{key} lies": value.data_ptr() for key, value in tensors.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "adamw", "radam"])
@pytest.mark.parametrize(
    "make", [small.model, small.vqvae, small.very_deep, small.residual], ids=lambda make: make.__name__
)
def test_nothing_is_bound_anew_by_a_step(make: Any, optimizer: str) -> None:
    model = make().train()
    step = steps.train_step(model, optimizer=optimizer, ema=Ema(model, 0.99), skip_norm=1e9)
    x = small.images(4, model.image_shape, 2)
    step(x, 0)  # the meter learns names in the first step
    before = homes(step)
    for k in range(1, 3):
        step(x * (float("nan") if k == 2 else 1.0), k)
    assert {key for key, home in homes(step).items() if before[key] != home} == set()
    assert step.meter.skipped() == 1


def test_a_step_that_takes_another_course_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[bool] = []
    monkeypatch.setattr(Graphed, "forget", lambda graphed: forgotten.append(True))
    model, objective = small.model().train(), small.objective(balance="kl", balance_steps=1)
    step = steps.train_step(model, objective=objective, is_graphed=True)
    x, n_forgotten = small.images(4, model.image_shape, 2), []
    for k in range(4):  # the first two of which are balanced; so few are not captured
        step(x, k)
        n_forgotten.append(len(forgotten))
    assert n_forgotten == [1, 1, 2, 2]
