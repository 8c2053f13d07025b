"""``python -m lvae_torch.train CFG``, or the same under ``torchrun``: train, or continue where the run stopped."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lvae_torch.assembly import Data, assemble
from lvae_torch.cli import main, parser
from lvae_torch.continuing import begin_or_continue
from lvae_torch.data.loader import training_batches
from lvae_torch.errors import Preempted
from lvae_torch.hparams import Settings, load
from lvae_torch.processes import Processes, start_processes
from lvae_torch.reporting import training_reporters
from lvae_torch.run_folder import RunFolder
from lvae_torch.training.loop import Run, fit, restore
from lvae_torch.training.stopping import StopRequest
from lvae_torch.watching import training_summary
from lvae_torch.wiring import check_same_data, make_preprocess, open_dump, run_folder, share_of_batch


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
    with ExitStack() as stack:
        processes = stack.enter_context(start_processes(settings.run.device, settings.train.timeout_minutes))
        stop = stack.enter_context(StopRequest(processes).listening())
        dump = open_dump(settings)
        data = Data.of(settings, dump, make_preprocess(settings, dump.n_levels))
        share_of_batch(settings, processes.world)
        reporter = NOTHING
        if processes.is_main:
            stack.enter_context(folder.lock())
            begin_or_continue(folder, settings)
            reporter = stack.enter_context(closing(Reporters()))
        run = assemble(settings, data, processes, stop, folder, reporter)
        with _status(folder, run):
            _continue(run, dump)
            if processes.is_main:
                reporter.attach(training_reporters(folder, settings, run))
            share = share_of_batch(settings, processes.world)
            with training_batches(data.training, data.order, processes, run.state.step, settings.data.on_device) as batches:
                fit(run, batches)
        if processes.is_main:
            print(training_summary(run, settings, data))


def _continue(run: Run, dump: Dump) -> None:
    """Restore the newest whole checkpoint, if there is one; rank 0 looks first, and sets damaged ones aside."""
    if run.processes.is_main:
        checkpoint = run.store.load_newest(warn)
    run.processes.barrier()
    if not run.processes.is_main:
        checkpoint = run.store.load_newest(warn)
    if checkpoint is not None:
        _, state = checkpoint
        check_same_data(state["meta"], dump)
        restore(run, state)


@contextmanager
def _status(folder: RunFolder, run: Run) -> Iterator[None]:
    """Keep ``status.json`` true, however this ends."""

    def write(state: RunState, message: str = "") -> None:
        if run.processes.is_main:
            folder.write_status(state, run.state.step, message)

    write("running")
    try:
        yield
        run.store.close()
    except Preempted as reason:
        run.store.close()
        write("preempted", str(reason))
        raise
    except BaseException as reason:
        write("failed", f"{type(reason).__name__}: {reason}")
        raise
    write("finished")


if __name__ == "__main__":
    main(command)
