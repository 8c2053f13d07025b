"""Everything a training run works with, put together from its settings."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lvae_torch.assembled_data import Data, evaluation_statistics
from lvae_torch.data.images import Images
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.evaluation import Evaluation, evaluate
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import (
    Settings,
    load_text,
    to_cfg,
    whole,
)
from lvae_torch.reporting.reporter import Reporter
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.folder import RunFolder
from lvae_torch.seeding import seed_everything
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.loop import (
    Plan,
    Run,
    State,
    load_finished,
)
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import decay_before_steps, make_optimizer
from lvae_torch.training.step import TrainStep, evaluated_weights
from lvae_torch.watching import TrainingWatch
from lvae_torch.wiring import (
    build_model,
    checkpoint_meta,
    data_meta,
    make_learning_rate,
    make_objective,
)


def assemble(
    settings: Settings, data: Data, processes: Processes, stop: StopRequest, folder: RunFolder, reporter: Reporter
) -> Run:
    """A run at step 0: model initialised, nothing trained."""
    bare = _initial_model(settings, data, processes)
    if settings.train.initial_run and not folder.has_checkpoints:
        bare.load_state_dict(_weights_of(settings, settings.train.initial_run, data))
    flat = FlatParameters(bare)
    ema = Ema(bare, settings.train.ema_decay) if settings.train.ema_decay > 0 else None
    model = _as_called(bare, settings, processes)
    evaluated: Any = bare if ema is None else ema.model
    watcher = TrainingWatch(
        reporter,
        evaluated,
        _pictures(settings, data, processes),
        settings.run.seed,
    )
    return Run(
        state=State(),
        plan=_plan(settings),
        train_step=_train_step(settings, data, processes, model, bare, flat, ema),
        evaluate=partial(_evaluate, settings, data, processes, stop, evaluated),
        store=CheckpointStore(folder.checkpoints, settings.train.keep_checkpoints),
        meta=checkpoint_meta(to_cfg(settings), data_meta(data.dump, data.preprocess.levels_after)),
        watcher=watcher,
        processes=processes,
        stop=stop,
    )


def _initial_model(settings: Settings, data: Data, processes: Processes) -> Any:
    """The same weights on every rank, whatever the number of ranks: one seed, one batch."""
    seed_everything("initialization", settings.run.seed)
    model: Any = build_model(settings, data.dump.image_shape, data.preprocess.levels_after)
    model.to(processes.device)
    if settings.train.channels_last:
        model.to(memory_format=torch.channels_last)
    model.initialize(Images(data.training, data.preprocess).at(data.order.batch(0), processes.device))
    return model.train()


def _weights_of(settings: Settings, name: str, data: Data) -> dict[str, Tensor]:
    """The weights that another run was evaluated with.

    Raises:
        DataError: if there is no such run, or it has no checkpoint.
        CfgError: if it is of another model.
    """
    folder = RunFolder(Path(settings.run.runs), name)
    if not folder.checkpoints.is_dir():
        raise DataError(f"[train] initial_run = {name}: {folder.path} has no checkpoints. Train it first.")
    checkpoint = load_finished(CheckpointStore(folder.checkpoints))
    trained = load_text(checkpoint["meta"]["settings"], f"{folder.path}: the checkpoint's settings")
    if trained.model != settings.model:
        raise CfgError(f"[train] initial_run = {name}: that run has another [model] section.")
    known, ours = checkpoint["meta"]["data"], (list(data.dump.image_shape), data.preprocess.levels_after)
    if (known["image_shape"], known["n_levels"]) != ours:
        raise CfgError(f"[train] initial_run = {name}: that run's images are {known['image_shape']}, ours {ours[0]}.")
    return evaluated_weights(checkpoint)


def _as_called(bare: Any, settings: Settings, processes: Processes) -> nn.Module:
    """``bare`` with the switches of ``[train]`` around it."""
    train = settings.train
    if train.activation_checkpointing:
        bare.rematerialize()
    model: Any = bare
    if train.sync_batch_norm:
        if processes.device.type != "cuda":
            raise CfgError("[train] sync_batch_norm = True needs GPUs; PyTorch has none of it for CPUs. Set it False.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if train.compile:
        model = torch.compile(model)
    if processes.world > 1:
        ids = [processes.device.index] if processes.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids)
    return model


def _train_step(
    settings: Settings,
    data: Data,
    processes: Processes,
    model: nn.Module,
    bare: Any,
    flat: FlatParameters,
    ema: Ema | None,
) -> TrainStep:
    optimizer = settings.optimizer
    autocast = torch.autocast(processes.device.type, torch.bfloat16) if settings.train.precision == "bfloat16" else None
    return TrainStep(
        model=model,
        bare=bare,
        flat=flat,
        ema=ema,
        objective=make_objective(settings, data.dump.image_shape),
        optimizer=_optimizer(settings, bare, flat),
        learning_rate=make_learning_rate(settings),
        meter=Meter(len(bare.latent_shapes()), processes.device),
        preprocess=data.preprocess.training,
        accumulate=settings.train.accumulate,
        clip_norm=optimizer.clip_norm,
        skip_norm=optimizer.skip_norm,
        max_skips_in_a_row=optimizer.max_skips_in_a_row,
        autocast=autocast,
    )


def _optimizer(settings: Settings, bare: Any, flat: FlatParameters) -> Optimizer:
    """With the L2 penalty or the decoupled decay that the settings ask for.

    Raises:
        CfgError: if only the weights of blocks are to decay, but the family has no such.
    """
    section = settings.optimizer
    on_all = section.weight_decay if section.weight_decay_on == "all" else 0.0
    optimizer = make_optimizer(section.name, flat, section.betas, section.eps, on_all)
    if section.weight_decay_on == "blocks":
        if not hasattr(bare, "block_weights"):
            raise CfgError(
                f"[optimizer] weight_decay_on = blocks: family {settings.model.family} does not say which weights "
                "those are; use all."
            )
        decay_before_steps(optimizer, bare.block_weights(), section.weight_decay)
    return optimizer


def _plan(settings: Settings) -> Plan:
    train = settings.train
    return Plan(
        seed=settings.run.seed,
        steps=whole(train.steps),
        log_every=whole(train.log_every),
        evaluate_every=whole(settings.val.every),
        checkpoint_every=whole(train.checkpoint_every),
        max_skips_in_a_row=settings.optimizer.max_skips_in_a_row,
        patience=settings.val.patience,
    )


def _evaluate(
    settings: Settings, data: Data, processes: Processes, stop: StopRequest, model: Any, last: bool
) -> Evaluation:
    """The validation split; the importance-weighted bound only at the end."""
    batches, rounds = data.validation_batches(settings.val.batch_size, processes)
    was_training = model.training
    model.eval()
    processes.broadcast_(model.buffers())  # running statistics are each rank's own
    try:
        with evaluation_statistics(settings, model, Images(data.training, data.preprocess), processes):
            return evaluate(
                model,
                stop.watch(batches, rounds),
                processes,
                settings.run.seed,
                iw_samples=settings.val.iw_samples if last else 0,
            )
    finally:
        model.train(was_training)


def _pictures(settings: Settings, data: Data, processes: Processes) -> Tensor | None:
    if settings.val.images == 0 or not processes.is_main:
        return None
    return data.strided(settings.val.images, processes.device)
