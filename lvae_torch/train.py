"""``python -m lvae_torch.train CFG``, or the same under ``torchrun``: train, or continue where the run stopped."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from lvae_torch.assembled_data import Data
from lvae_torch.assembly import assemble
from lvae_torch.cli import main, parser
from lvae_torch.continuing import begin_or_continue
from lvae_torch.data.dump import Dump
from lvae_torch.data.loader import training_batches
from lvae_torch.distributed.processes import start_processes
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.errors import DataError, Preempted, say
from lvae_torch.hparams import (
    Settings,
    in_steps,
    load,
    load_text,
    shared_by_all,
)
from lvae_torch.reporting.reporter import Reporters
from lvae_torch.runs.folder import RunFolder, RunState
from lvae_torch.training.loop import Run, fit, restore
from lvae_torch.watching import training_reporters, training_summary
from lvae_torch.wiring import (
    check_batch_shares,
    check_same_data,
    make_preprocess,
    open_dump,
    run_folder,
)


def command(argv: Sequence[str]) -> None:
    """Train the run that a cfg describes, from its last checkpoint if it has one."""
    arguments = parser("train", "Train a run, or continue it: the same command does both.").parse_args(argv)
    train(load(Path(arguments.cfg), arguments.overrides))


def train(settings: Settings) -> None:
    """Train to the last step; everything is kept in ``runs/<run.name>/``.

    Raises:
        Preempted: after a signal; the same command continues.
        UserError: for anything outside the program that must change; what was saved stays.
    """
    folder = run_folder(settings)
    dump = open_dump(settings)
    data = Data.of(settings, dump, make_preprocess(settings, dump.n_levels))
    settings = in_steps(settings, data.order.steps_per_epoch)
    with ExitStack() as stack:
        processes = stack.enter_context(start_processes(settings.run.device, settings.train.timeout_minutes))
        check_batch_shares(settings, processes.world)
        told = f"{shared_by_all(settings)}\ndata {dump.identity}, {dump.content_hash}"
        processes.require_same("settings and data", told, "Start every node with the same cfg, --set and dump.")
        if processes.is_main:
            stack.enter_context(folder.lock())
            begin_or_continue(folder, settings)
            if settings.data.verify:
                dump.verify(settings.data.train_split, settings.data.val_split)
        stop = stack.enter_context(StopRequest(processes).listening())  # until here there is nothing to save
        reporters = stack.enter_context(closing(Reporters()))
        run = assemble(settings, data, processes, stop, folder, reporters)
        with _status(folder, run):
            _continue(run, dump, settings)
            if processes.is_main:
                reporters.reporters += training_reporters(folder, settings, run.state.step)
            with training_batches(
                data.training, data.order, processes, run.state.step, settings.data.on_device
            ) as batches:
                fit(run, batches)
        if processes.is_main:
            reporters.close()
            print(training_summary(run, settings, data, folder))


def _continue(run: Run, dump: Dump, settings: Settings) -> None:
    """Restore the newest whole checkpoint, if there is one. Rank 0 looks first, and sets damaged ones aside."""
    for is_my_turn in (run.processes.is_main, not run.processes.is_main):
        if is_my_turn and (checkpoint := run.store.load_newest(say)) is not None:
            check_same_data(checkpoint["meta"], dump)
            _check_same_model(checkpoint["meta"], run, settings)
            restore(run, checkpoint)
        run.processes.barrier()
    step = run.state.step
    told = f"checkpoint of step {step}, {run.store.digest(step)}" if step else "no checkpoint"
    remedy = (
        f"All nodes must see the same files below {run.store.folder}: put [run] runs on a file system that they share."
    )
    run.processes.require_same("checkpoint", told, remedy)


def _check_same_model(meta: Mapping[str, Any], run: Run, settings: Settings) -> None:
    """Refuse weights of another model.

    Raises:
        DataError: naming the folder that they lie in.
    """
    if load_text(meta["settings"], "the checkpoint's settings").model != settings.model:
        raise DataError(
            f"{run.store.folder}: its newest checkpoint is of another [model] section than this run's. Put back the "
            "right one, or remove the run with ./reset.sh to begin anew."
        )


@contextmanager
def _status(folder: RunFolder, run: Run) -> Iterator[None]:
    """Keep ``status.json`` true, however this ends; nothing saved is left unwritten."""

    def write(state: RunState, message: str = "") -> None:
        if run.processes.is_main:
            folder.write_status(state, run.state.step, message)

    def write_end(state: RunState, message: str) -> None:
        with suppress(DataError):  # a full disk must not hide why the run ended
            write(state, message)

    write("running")
    try:
        try:
            yield
        finally:
            run.store.wait()
    except Preempted as reason:
        write_end("preempted", str(reason))
        raise
    except BaseException as reason:
        lost = run.processes.find_lost(reason)
        write_end("failed", f"{type(lost or reason).__name__}: {lost or reason}")
        if lost is not None:
            raise lost from reason
        raise
    write("finished")


if __name__ == "__main__":
    main(command)
