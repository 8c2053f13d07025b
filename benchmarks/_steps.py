"""A whole training step of a cfg's model, without a run around it."""

import torch

from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.objective import Objective
from lvae_torch.elbo.section import LossSection
from lvae_torch.hparams import Settings
from lvae_torch.info import shape_of_data
from lvae_torch.models.contract import Model
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import make_optimizer
from lvae_torch.training.section import OptimizerSection
from lvae_torch.training.step import TrainStep
from lvae_torch.training.wrapping import choose_kernels, place, step_switches, switch

CPU = torch.device("cpu")


def trained_model(settings: Settings, device: torch.device = CPU) -> Model:
    """Its weights drawn from seed 0, in training mode and in the memory format that training uses."""
    torch.manual_seed(0)
    model = settings.model.build(*shape_of_data(settings))
    place(settings.train, model, device)
    return model.train()


def whole_step(
    settings: Settings,
    model: Model,
    section: OptimizerSection | None = None,
    rate: float = 0.0,
    processes: Processes | None = None,
) -> TrainStep:
    """Optimizer (Adamax unless ``section`` says another), EMA, skip guard and meter, with the switches of [train].

    With a learning ``rate`` of 0 no step changes the next one. Without ``processes`` the step is that of one process.
    """
    train, device = settings.train, next(model.parameters()).device
    own = processes or Processes(0, 1, device)
    choose_kernels(train, settings.run.deterministic, device)
    model.train()
    flat = FlatParameters(model)
    section = section or OptimizerSection()
    step = TrainStep(
        section=section,
        bare=model,
        flat=flat,
        ema=Ema(model, 0.999),
        objective=Objective(LossSection(), model.image_shape),
        optimizer=make_optimizer(section, flat, model.block_weights()),
        learning_rate=lambda step: rate,
        meter=Meter(len(model.latent_shapes()), device),
        preprocess=Preprocess(shape_of_data(settings)[1]).training,
        **step_switches(train, model, flat, own),
    )
    switch(train, model, own)
    return step
