"""``python -m lvae_torch.train CFG``, or the same under ``torchrun``: train, or continue where the run stopped."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lvae_torch.cli import begin, main, parser

PARSER = parser("train")
PARSER.add_argument("--from-checkpoint", default="last", metavar="STEP|best|good|last",
                    help="go on from this checkpoint of the run; those after it are set aside")  # fmt: skip
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.data.labelled import Labelled
from lvae_torch.data.loader import training_batches
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.cpu import half_told
from lvae_torch.distributed.memory import is_out_of_memory
from lvae_torch.distributed.processes import Processes, start_processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.evaluator import Evaluator, TellPhase, silent, told_to
from lvae_torch.elbo.objective import Objective
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.hparams import Settings, check_same_model, in_steps, keep_settings, load_in_place, shared_by_all, to_cfg
from lvae_torch.hparams.checks import part_misfits
from lvae_torch.models.contract import Model
from lvae_torch.report.writing import ReportWriter
from lvae_torch.reporting.grids import how_shown
from lvae_torch.reporting.progress import Progress
from lvae_torch.reporting.reporter import Reporter, Reporters
from lvae_torch.resuming.start import Start, as_checkpoint, computed_on, find_start
from lvae_torch.runs.checkpoint import About, State, TrainedOn, load_chosen, store_of
from lvae_torch.runs.checkpoints import CheckpointStore, Which
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.status import RunStatus, kept_status
from lvae_torch.trained.run import TrainedRun
from lvae_torch.training.ema import Ema
from lvae_torch.training.fine_tuning import freeze, take_fitting
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.initialization import check_first_loss, first_passes_watched, initialize
from lvae_torch.training.log import TrainingWatch, listed, training_reporters
from lvae_torch.training.loop import Plan, Run, check_steps, restore
from lvae_torch.training.memory import AtOnce, most_at_once, needs, out_of_memory, told_before
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import learning_rate, make_optimizer
from lvae_torch.training.rollback import fit_or_go_back
from lvae_torch.training.step import TrainStep
from lvae_torch.training.summary import training_summary
from lvae_torch.training.wrapping import place, prepare, step_switches, switch


def command(argv: Sequence[str]) -> None:
    """Train the run that a cfg describes, from its last checkpoint if it has one."""
    arguments = PARSER.parse_args(argv)
    settings = load_in_place(Path(arguments.cfg), arguments.overrides, with_images=True)
    train(settings, as_checkpoint(arguments.from_checkpoint))


def train(settings: Settings, wanted: Which = "last") -> None:
    """Train to the last step; all files go to ``runs/<run.name>/``.

    Args:
        wanted: the checkpoint to go on from, if the run has any.
    Raises:
        Preempted: after a signal; the same command continues.
        UserError: for anything outside the program that must change; saved files stay.
    """
    folder = RunFolder.of(settings.run)
    is_conditional = settings.model.is_conditional
    with ExitStack() as stack:
        processes = stack.enter_context(start_processes(settings.run.device, settings.train.timeout_minutes))
        data = RunData.of(settings.data, settings.train.batch_size, settings.run.seed, is_conditional)
        steps = in_steps(settings, data.order.steps_per_epoch).train.total_steps  # what does not fit is told first
        prepare(settings.train, settings.run.deterministic, Path(settings.run.runs), processes)
        for told in (half_told(processes.device, settings.train.precision), *settings.without_effect):
            if told:
                processes.say(told)
        parts = settings.model, settings.train, data.dump.image_shape, data.levels, processes.world
        if problems := list(part_misfits(*parts)):
            raise CfgError("\n".join(problems))
        images = f"data {data.dump.identity}, {data.dump.content_hash}, {data.classes}"
        told = f"{shared_by_all(settings)}\n{images}"
        processes.require_same("settings and data", told, "Start every node with the same cfg, --set and dump.")
        model = initial_model(settings, data, folder, processes)  # nothing is written until it could be made
        status = RunStatus(folder, processes, steps, settings.train.batch_size)
        tell = told_to(status.tell, Progress()) if processes.is_main else silent
        if processes.is_main:
            stack.enter_context(folder.lock())
            stack.enter_context(status.alive())
            if settings.data.verify:
                checking = partial(tell, "checking data")
                data.dump.verify(settings.data.train_split, settings.data.val_split, tell=checking)
        start = find_start(settings, data, folder, processes, wanted)
        settings, data = start.settings, replace(data, order=start.order)
        stack.enter_context(start.on_its_threads(processes.say))
        stop = stack.enter_context(StopRequest(processes).listening())  # until here there is nothing to save
        reporters = stack.enter_context(closing(Reporters()))
        run = assemble(settings, data, model, processes, stop, folder, reporters, tell, start.state.origin)
        _begin(run, start, settings, folder)
        report = _report(run, settings, folder) if processes.is_main and settings.run.report else None
        if report is not None:
            stack.callback(report.finish)  # when the status tells how the run ended
        status.steps, status.step = settings.train.total_steps, lambda: run.state.step
        with kept_status(status, processes, run.store.wait), _memory_watched(run, settings):

            def report_onwards() -> None:
                if processes.is_main:
                    shown = [] if report is None else [report]  # after those whose files it reads
                    reporters.restart([status, *_reporters(settings, run.state), *shown])

            def batches(step: int) -> AbstractContextManager[Iterator[Labelled]]:
                return training_batches(data.split, data.order, processes, step, settings.data.on_device)

            report_onwards()
            fit_or_go_back(run, batches, report_onwards, start.holds)
        if processes.is_main:
            reporters.close()
            print(training_summary(run, settings.train, settings.data, data, folder))


def _begin(run: Run, start: Start, settings: Settings, folder: RunFolder) -> None:
    """Put the run where it starts; from here on nothing is refused, and rank 0 keeps the settings.

    Raises:
        CfgError: if the run has taken more steps than it should have.
    """
    if start.checkpoint is not None:
        restore(run, start.checkpoint)
    check_steps(run.state, run.plan)
    if not run.processes.is_main:
        return
    keep_settings(folder, settings, start.changes)
    if start.is_older:  # the checkpoints of the course that the run leaves
        steps = run.store.set_aside(run.state.step)
        say(f"going on from step {run.state.step}; checkpoints after it ({', '.join(map(str, steps))}) become *.aside.")


@contextmanager
def _memory_watched(run: Run, settings: Settings) -> Iterator[None]:
    """Tell what the run will take; inside, where that is not to be had, the error says what to change.

    Raises:
        OutOfMemory: naming what was being done, the keys and their values.
    """
    step, own = run.train_step, run.processes
    train, val, synthesis = settings.train, settings.val, settings.synthesis
    at_once = AtOnce.of(train, val, synthesis.batch_size, own.world)
    # All ranks find it out together.
    found = needs(step.bare, train, settings.loss, at_once, step.half, synthesis.precision)
    own.say(told_before(found, at_once, train, val, own.device, own.world))
    if own.device.type == "cuda" and val.iw_samples:
        beside = found.training.kept(at_once.training)
        run.evaluate.chunk = most_at_once(found.evaluation, beside, val.batch_size, own)
    try:
        yield
    except Exception as reason:
        if not is_out_of_memory(reason):
            raise
        raise out_of_memory(run.phase, found, train, val, own.device, own.world) from reason


def initial_model(settings: Settings, data: RunData, folder: RunFolder, processes: Processes) -> Model:
    """The initial model, equal on all ranks for any number of ranks: from one seed and batch, or from another run.

    Raises:
        DataError: if ``[train] initial_run`` has no checkpoint.
        CfgError: if that run has another model or other images.
        OutOfMemory: naming the keys and their values.
    """
    train, seed, own = settings.train, settings.run.seed, processes
    seed_everything("initialization", seed)
    with first_passes_watched(train, own.device):
        model = settings.model.build(data.dump.image_shape, data.levels, len(data.classes.names))
        place(train, model, own.device)
        initialize(model, data, seed, own.say)
        if train.initial_run and not folder.has_checkpoints:
            _begin_with(train.initial_run, model, settings, data, own)
        freeze(model, train.freeze)
        if not folder.has_checkpoints:
            at_once = AtOnce.of(train, settings.val, settings.synthesis.batch_size, own.world).training
            check_first_loss(model, data, seed, own.say, max(1, at_once))
    return model.train()


def _begin_with(name: str, model: Model, settings: Settings, data: RunData, processes: Processes) -> None:
    """Load the weights with which another run, NAME or NAME@CHECKPOINT, was evaluated; all, or what fits."""
    run, _, which = name.partition("@")
    where = RunFolder(Path(settings.run.runs), run)
    try:
        checkpoint = load_chosen(store_of(where.checkpoints), as_checkpoint(which or "last"))
    except DataError as error:
        raise DataError(f"[train] initial_run = {name}: {error}") from error
    if settings.train.initial_partial:
        table = take_fitting(model, checkpoint.weights())
        processes.say(f"[train] initial_run = {name}, step {checkpoint.step}:\n{table}")
        return
    remedy = f"[train] initial_run = {name} needs the same one; initial_partial = True takes what fits."
    check_same_model(settings.model, checkpoint.about, where.path, remedy)
    known, n_classes = checkpoint.about.trained_on, len(data.classes.names)
    if (known.image_shape, known.n_levels) != (data.dump.image_shape, data.levels):
        raise CfgError(
            f"[train] initial_run = {name}: that run's images are {known.image_shape} of {known.n_levels} levels, ours "
            f"{data.dump.image_shape} of {data.levels}; initial_partial = True takes what fits."
        )
    if len(known.classes) != n_classes:
        raise CfgError(
            f"[train] initial_run = {name}: that run's images have {len(known.classes)} classes, ours {n_classes}; "
            "initial_partial = True takes what fits."
        )
    model.load_state_dict(checkpoint.weights())


def assemble(
    settings: Settings,
    data: RunData,
    bare: Model,
    processes: Processes,
    stop: StopRequest,
    folder: RunFolder,
    reporter: Reporter,
    tell: TellPhase = silent,
    origin: int = 0,
) -> Run:
    """A run at step 0 of an initialised model, whose schedules count from ``origin``."""
    flat = FlatParameters(bare)
    is_trained = settings.train.initial_run is not None and not settings.train.initial_partial  # none is new
    frozen = [weight.data for weight in bare.parameters() if not weight.requires_grad]
    processes.broadcast_([flat.vector.data, *flat.buffers, *frozen])  # hosts may differ in the last bit
    step = TrainStep(
        section=settings.optimizer,
        ema=Ema(bare, settings.train.ema_decay, is_aged=is_trained) if settings.train.ema_decay > 0 else None,
        bare=bare,
        flat=flat,
        objective=Objective(settings.loss, data.dump.image_shape),
        optimizer=make_optimizer(settings.optimizer, flat, bare.block_weights()),
        learning_rate=learning_rate(settings.optimizer, settings.train.total_steps - origin),
        meter=Meter(len(bare.latent_shapes()), processes.device),
        preprocess=data.preprocess.training,
        **step_switches(settings.train, bare, flat, processes),
    )
    switch(settings.train, bare, processes)  # the average is of the model as it was
    dump, n_pictures = data.dump, settings.val.images if processes.is_main else 0
    pictures = data.strided(n_pictures, processes.device) if n_pictures else None
    if n_pictures and (shown := how_shown(dump.image_shape)):
        say(f"{dump.dataset}: {shown}")
    trained_on = TrainedOn(
        *(dump.dataset, dump.content_hash, dump.image_shape, data.levels, dump.provenance.get("codes_of")),
        *(data.classes.names, data.classes.labels_hash),
    )
    return Run(
        state=State(),
        plan=Plan.of(settings.run.seed, settings.train, settings.val, settings.optimizer),
        train_step=step,
        evaluate=Evaluator(
            *(settings.val, step.evaluated, data, processes, stop, settings.run.seed, tell),
            is_graphed=step.is_graphed,
            is_averaged=step.ema is not None,
        ),
        store=CheckpointStore(folder.checkpoints, settings.train.keep_checkpoints),
        about=About(to_cfg(settings), trained_on, computed_on=computed_on(processes)),
        watcher=TrainingWatch(
            *(reporter, step.evaluated, pictures, settings.run.seed),
            skip_norm=settings.optimizer.skip_norm,
            at_once=settings.val.batch_size,
            tell=tell,
            is_asked_to_stop=lambda: bool(stop.signal_name),
        ),
        processes=processes,
        stop=stop,
        tell=tell,
    )


def _report(run: Run, settings: Settings, folder: RunFolder) -> ReportWriter:
    """The writer of the run's report."""
    step, trained_on = run.train_step, run.about.trained_on

    def looked_at(at: int) -> TrainedRun:
        is_averaged, device = step.ema is not None, run.processes.device
        told = run.about.versions
        return TrainedRun(settings, step.evaluated, at, is_averaged, trained_on, folder.path, device, versions=told)

    pictures = run.watcher.pictures if isinstance(run.watcher, TrainingWatch) else None
    return ReportWriter(settings, looked_at, pictures, lambda: bool(run.stop.signal_name))


def _reporters(settings: Settings, state: State) -> list[Reporter]:
    s = settings
    values = listed(model=s.model, data=s.data, loss=s.loss, optimizer=s.optimizer, train=s.train)
    return training_reporters(s.run, state, s.train.total_steps, to_cfg(s), values)


if __name__ == "__main__":
    main(command)
