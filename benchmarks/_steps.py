"""A whole training step of a cfg's model, without a run around it."""

from typing import Any

import torch
from torch import nn

from lvae_torch.data.transforms import Preprocess
from lvae_torch.elbo.objective import Objective, constant_beta
from lvae_torch.hparams import Settings
from lvae_torch.info import shape_of_data
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import make_optimizer
from lvae_torch.training.step import TrainStep
from lvae_torch.wiring import build_model


def trained_model(settings: Settings) -> Any:
    """Its weights drawn from seed 0, in training mode and in the memory format that training uses."""
    torch.manual_seed(0)
    model: Any = build_model(settings, *shape_of_data(settings))
    return model.to(memory_format=torch.channels_last).train()


def whole_step(settings: Settings, model: Any) -> TrainStep:
    """Adamax, EMA, skip guard and meter, on the CPU; the learning rate is 0, so that no step changes the next one."""
    train = settings.train
    model.train()
    if train.activation_checkpointing:
        model.rematerialize()
    flat = FlatParameters(model)
    called: nn.Module = model
    return TrainStep(
        model=called,
        bare=called,
        flat=flat,
        ema=Ema(model, 0.999),
        objective=Objective(constant_beta(1.0)),
        optimizer=make_optimizer("adamax", flat, (0.9, 0.999), 1e-8, 0.0),
        learning_rate=lambda step: 0.0,
        meter=Meter(len(model.latent_shapes()), torch.device("cpu")),
        preprocess=Preprocess(shape_of_data(settings)[1]).training,
        accumulate=train.accumulate,
        autocast=torch.autocast("cpu", torch.bfloat16) if train.precision == "bfloat16" else None,
    )
