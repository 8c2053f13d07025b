"""``python -m lvae_torch.train CFG``, or the same under ``torchrun``: train, or continue where the run stopped."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from lvae_torch.cli import begin, main, parser

PARSER = parser("train")
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from torch import Tensor

from lvae_torch.data.loader import training_batches
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.memory import is_out_of_memory
from lvae_torch.distributed.processes import Processes, start_processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.evaluator import Evaluator, TellPhase, silent, told_to
from lvae_torch.elbo.objective import Objective
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.hparams import Settings, begin_or_continue, check_same_model, in_steps, load, shared_by_all, to_cfg
from lvae_torch.models.contract import Model
from lvae_torch.reporting.grids import how_shown
from lvae_torch.reporting.progress import Progress
from lvae_torch.reporting.reporter import Reporter, Reporters
from lvae_torch.runs.checkpoint import About, State, TrainedOn, Weights, load_chosen, load_newest, store_of
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.status import RunStatus, kept_status
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.log import TrainingWatch, listed, training_reporters
from lvae_torch.training.loop import Plan, Run, fit, restore
from lvae_torch.training.memory import out_of_memory
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import learning_rate, make_optimizer
from lvae_torch.training.step import TrainStep
from lvae_torch.training.summary import training_summary
from lvae_torch.training.wrapping import as_called, autocast, check_processes, place


def command(argv: Sequence[str]) -> None:
    """Train the run that a cfg describes, from its last checkpoint if it has one."""
    arguments = PARSER.parse_args(argv)
    train(load(Path(arguments.cfg), arguments.overrides, with_images=True))


def train(settings: Settings) -> None:
    """Train to the last step; all files go to ``runs/<run.name>/``.

    Raises:
        Preempted: after a signal; the same command continues.
        UserError: for anything outside the program that must change; saved files stay.
    """
    folder = RunFolder.of(settings.run)
    data = RunData.of(settings.data, settings.train.batch_size, settings.run.seed)
    settings = in_steps(settings, data.order.steps_per_epoch)
    with ExitStack() as stack:
        processes = stack.enter_context(start_processes(settings.run.device, settings.train.timeout_minutes))
        check_processes(settings.train, processes)
        told = f"{shared_by_all(settings)}\ndata {data.dump.identity}, {data.dump.content_hash}"
        processes.require_same("settings and data", told, "Start every node with the same cfg, --set and dump.")
        model = initial_model(settings, data, folder, processes)  # nothing is written until it could be made
        status = RunStatus(folder, processes, settings.train.total_steps, settings.train.batch_size)
        tell = told_to(status.tell, Progress()) if processes.is_main else silent
        if processes.is_main:
            stack.enter_context(folder.lock())
            begin_or_continue(folder, settings)
            stack.enter_context(status.alive())
            if settings.data.verify:
                checking = partial(tell, "checking data")
                data.dump.verify(settings.data.train_split, settings.data.val_split, tell=checking)
        stop = stack.enter_context(StopRequest(processes).listening())  # until here there is nothing to save
        reporters = stack.enter_context(closing(Reporters()))
        run = assemble(settings, data, model, processes, stop, folder, reporters, tell)
        status.step = lambda: run.state.step
        with kept_status(status, processes, run.store.wait):
            _continue(run, settings, data)
            if processes.is_main:
                reporters.reporters += [status, *_reporters(settings, folder, run.state.step)]
            with training_batches(
                data.split, data.order, processes, run.state.step, settings.data.on_device
            ) as batches:
                _fit(run, batches, settings)
        if processes.is_main:
            reporters.close()
            print(training_summary(run, settings.train, settings.data, data, folder))


def _fit(run: Run, batches: Iterator[Tensor], settings: Settings) -> None:
    """Train; where the memory is not enough, say what to change.

    Raises:
        OutOfMemory: naming what was being done, the keys and their values.
    """
    try:
        fit(run, batches)
    except Exception as reason:
        if not is_out_of_memory(reason):
            raise
        own = run.processes
        raise out_of_memory(run.phase, settings.train, settings.val, own.device, own.world) from reason


def initial_model(settings: Settings, data: RunData, folder: RunFolder, processes: Processes) -> Model:
    """The initial model, equal on all ranks for any number of ranks: from one seed and batch, or from another run.

    Raises:
        DataError: if ``[train] initial_run`` has no checkpoint.
        CfgError: if that run has another model or other images.
    """
    seed_everything("initialization", settings.run.seed)
    model = settings.model.build(data.dump.image_shape, data.levels)
    place(settings.train, model, processes.device)
    model.initialize(data.first_batch(processes.device))
    if settings.train.initial_run and not folder.has_checkpoints:
        model.load_state_dict(_weights_of(settings.train.initial_run, settings, data))
    return model.train()


def _weights_of(name: str, settings: Settings, data: RunData) -> Weights:
    """The weights with which another run was evaluated."""
    where = RunFolder(Path(settings.run.runs), name)
    try:
        checkpoint = load_chosen(store_of(where.checkpoints))
    except DataError as error:
        raise DataError(f"[train] initial_run = {name}: {error}") from error
    check_same_model(settings.model, checkpoint.about, where.path, f"[train] initial_run = {name} needs the same one.")
    known, ours = checkpoint.about.trained_on, (data.dump.image_shape, data.levels)
    if (known.image_shape, known.n_levels) != ours:
        raise CfgError(f"[train] initial_run = {name}: that run's images are {known.image_shape}, ours {ours[0]}.")
    return checkpoint.weights()


def assemble(
    settings: Settings,
    data: RunData,
    bare: Model,
    processes: Processes,
    stop: StopRequest,
    folder: RunFolder,
    reporter: Reporter,
    tell: TellPhase = silent,
) -> Run:
    """A run at step 0 of an initialised model."""
    flat, is_trained = FlatParameters(bare), settings.train.initial_run is not None
    step = TrainStep(
        section=settings.optimizer,
        ema=Ema(bare, settings.train.ema_decay, is_aged=is_trained) if settings.train.ema_decay > 0 else None,
        model=as_called(settings.train, bare, processes),
        bare=bare,
        flat=flat,
        objective=Objective(settings.loss, data.dump.image_shape),
        optimizer=make_optimizer(settings.optimizer, flat, bare.block_weights()),
        learning_rate=learning_rate(settings.optimizer, settings.train.total_steps),
        meter=Meter(len(bare.latent_shapes()), processes.device),
        preprocess=data.preprocess.training,
        accumulate=settings.train.accumulate,
        autocast=autocast(settings.train, processes.device),
    )
    dump, n_pictures = data.dump, settings.val.images if processes.is_main else 0
    pictures = data.strided(n_pictures, processes.device) if n_pictures else None
    if n_pictures and (shown := how_shown(dump.image_shape)):
        say(f"{dump.dataset}: {shown}")
    trained_on = TrainedOn(
        dump.dataset, dump.content_hash, dump.image_shape, data.levels, dump.provenance.get("codes_of")
    )
    return Run(
        state=State(),
        plan=Plan.of(settings.run.seed, settings.train, settings.val, settings.optimizer),
        train_step=step,
        evaluate=Evaluator(settings.val, step.evaluated, data, processes, stop, settings.run.seed, tell),
        store=CheckpointStore(folder.checkpoints, settings.train.keep_checkpoints),
        about=About(to_cfg(settings), trained_on),
        watcher=TrainingWatch(
            *(reporter, step.evaluated, pictures, settings.run.seed, settings.val.batch_size),
            tell,
            lambda: bool(stop.signal_name),
        ),
        processes=processes,
        stop=stop,
        tell=tell,
    )


def _continue(run: Run, settings: Settings, data: RunData) -> None:
    """Restore the newest whole checkpoint, if there is one. Rank 0 goes first and sets damaged ones aside."""
    where = run.store.folder
    for is_my_turn in (run.processes.is_main, not run.processes.is_main):
        if is_my_turn and (checkpoint := load_newest(run.store, say)) is not None:
            checkpoint.about.trained_on.check_same(data.dump.content_hash, data.dump.folder)
            remedy = "Put back the right checkpoints, or remove the run with ./reset.sh to begin anew."
            check_same_model(settings.model, checkpoint.about, where, remedy, DataError)
            restore(run, checkpoint)
        run.processes.barrier()
    step = run.state.step
    told = f"checkpoint of step {step}, {run.store.digest(step)}" if step else "no checkpoint"
    remedy = f"All nodes must see the same files below {where}: put [run] runs on a file system that they share."
    run.processes.require_same("checkpoint", told, remedy)


def _reporters(settings: Settings, folder: RunFolder, start_step: int) -> list[Reporter]:
    s = settings
    values = listed(model=s.model, data=s.data, loss=s.loss, optimizer=s.optimizer, train=s.train)
    return training_reporters(folder, start_step, s.train.total_steps, to_cfg(s), values)


if __name__ == "__main__":
    main(command)
