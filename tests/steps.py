"""Training steps of small models, which several tests take."""

from typing import Any

import small
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lvae_torch.distributed.processes import Processes
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.section import OptimizerSection
from lvae_torch.training.step import TrainStep

ALONE = Processes(0, 1, torch.device("cpu"))


def train_step(model: Any, **switches: Any) -> TrainStep:
    flat = FlatParameters(model)
    name = switches.pop("optimizer", "adamax")
    keys = {key: switches.pop(key) for key in ("clip_norm", "skip_norm", "max_skips_in_a_row") if key in switches}
    return TrainStep(
        section=OptimizerSection(**keys),
        bare=model,
        flat=flat,
        ema=switches.pop("ema", None),
        objective=switches.pop("objective", None) or small.objective(),
        optimizer=small.optimizer(flat, name),
        learning_rate=lambda step: 1e-3,
        meter=Meter(len(model.latent_shapes()), torch.device("cpu")),
        preprocess=lambda raw: raw,
        **switches,
    )


def state_of(step: TrainStep) -> list[Tensor]:
    optimizer = step.optimizer.state[step.flat.vector].values()
    return [step.flat.vector.data.clone(), *(t.clone() for t in optimizer), *(b.clone() for b in step.bare.buffers())]


class HostReads(TorchDispatchMode):
    """Counts reads of a value by the host. The optimizer's own step counter lives on the host when training on it."""

    def __init__(self, exempt: set[int]) -> None:
        super().__init__()
        self.exempt = exempt
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reading = {"aten._local_scalar_dense.default", "aten.is_nonzero.default", "aten.equal.default"}
        if str(func) in reading and args[0].data_ptr() not in self.exempt:
            self.count += 1
        if str(func) in {"aten.nonzero.default", "aten.masked_select.default"}:
            self.count += 1  # their size is known to the device only
        return func(*args, **(kwargs or {}))
