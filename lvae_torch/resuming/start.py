"""From a cfg and a run's folder to the state that training starts from."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lvae_torch.data.order import TrainingOrder
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.cpu import with_threads
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.hparams import Settings, check_same_model, check_unchanged, in_steps, refuse_changes, trained_settings
from lvae_torch.resuming.changes import (
    LEAST_LEAD,
    Change,
    after_changes,
    continued,
    places_changed,
    settings_changed,
    table_of,
    threads_to_keep,
)
from lvae_torch.runs.checkpoint import Checkpoint, State, load_chosen, load_newest, with_known_best
from lvae_torch.runs.checkpoints import CheckpointStore, Which
from lvae_torch.runs.folder import RunFolder


@dataclass(frozen=True)
class Start:
    """What a run starts from."""

    settings: Settings
    """In steps."""
    order: TrainingOrder
    """Of the training images, from the step on at which the run goes on."""
    checkpoint: Checkpoint | None = None
    """With the state that training goes on from; None for a new run."""
    changes: str = ""
    """What changed since the checkpoint was written, as a table."""
    is_older: bool = False
    """Whether the run goes on from a checkpoint that is not its newest: those after it are to be set aside."""

    threads: int | None = None
    """To compute on, as until now; None leaves them as they are."""

    @property
    def state(self) -> State:
        return State() if self.checkpoint is None else self.checkpoint.state

    def holds(self, earlier: Checkpoint) -> bool:
        """Whether the state of an earlier checkpoint is, as it was stored, the one to go on with from there.

        It is not where settings on which the order, the learning rate or the scores depend have changed since.
        """
        known = trained_settings(earlier.about, RunFolder.of(self.settings.run).checkpoints)
        stored = replace(earlier.state, anchor=tuple(earlier.state.anchor))
        if (stored.anchor, stored.origin) != (self.state.anchor, self.state.origin):
            return False
        return after_changes(stored, known, self.settings, self.order, self.settings) == stored

    def on_its_threads(self, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Inside, the run computes on as many threads as until now."""
        if self.threads is None:
            return nullcontext()
        tell(f"threads: {self.threads}, as this run had until now; OMP_NUM_THREADS sets another number.")
        return with_threads(self.threads)


def as_checkpoint(name: str) -> Which:
    """``best``, ``good``, ``last`` or the number of a step.

    Raises:
        CfgError: if it is none of these.
    """
    match name:
        case "best" | "good" | "last":
            return name
        case step if step.isdecimal():
            return int(step)
    raise CfgError(f"checkpoint {name!r}: use the number of a step, best, good or last.")


def find_start(
    settings: Settings, data: RunData, folder: RunFolder, processes: Processes, wanted: Which = "last"
) -> Start:
    """Where the run begins or goes on. Nothing is written, but damaged checkpoints are set aside.

    Args:
        wanted: which checkpoint to go on from.
    Raises:
        CfgError: if the settings shape another model or other data than the run's.
        DataError: if there is no such checkpoint, or it is of other data or another model.
    """
    checkpoint, is_older = _found(folder, processes, wanted)
    if checkpoint is None:
        check_unchanged(folder, in_steps(settings, data.order.steps_per_epoch))
        return Start(in_steps(settings, data.order.steps_per_epoch), data.order)
    known = trained_settings(checkpoint.about, folder.checkpoints)
    old_order = TrainingOrder(data.order.n_images, known.train.batch_size, data.order.seed, checkpoint.state.anchor)
    order = continued(old_order, settings, checkpoint.step)
    known = in_steps(known, old_order.steps_per_epoch)
    settings_ = in_steps(settings, order.steps_per_epoch, order.origin)
    check_unchanged(folder, settings_)
    checkpoint.about.trained_on.check_same(data.dump.content_hash, data.dump.folder, data.classes.labels_hash)
    remedy = "Put back the right checkpoints, or remove the run with ./reset.sh to begin anew."
    check_same_model(settings.model, checkpoint.about, folder.checkpoints, remedy, DataError)
    refuse_changes(folder, known, settings_)  # hparams.cfg may be gone
    # A run of 0.1.0 comes where 0.1.0 came with it, as far as that took no jump in a longer run.
    least_lead = 0 if checkpoint.about.versions.get("lvae_torch", "").startswith("0.1.") else LEAST_LEAD
    state = after_changes(checkpoint.state, known, settings_, order, settings, least_lead)
    known_on, now = checkpoint.about.computed_on, computed_on(processes)
    threads = threads_to_keep(known_on, now, os.environ)
    changes: Sequence[Change] = [
        *settings_changed(known, settings_, checkpoint.state, state, order),
        *places_changed(known_on, now if threads is None else {**now, "threads": str(threads)}),
    ]
    return Start(settings_, order, replace(checkpoint, state=state), table_of(changes), is_older, threads)


def computed_on(processes: Processes) -> dict[str, str]:
    """What the last bits of numbers depend on, beside versions."""
    device = processes.device
    name = f"{device.type} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
    threads = {"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}
    return {"device": name, **threads, "processes": str(processes.world)}


def _found(folder: RunFolder, processes: Processes, wanted: Which) -> tuple[Checkpoint | None, bool]:
    """The checkpoint to go on from, and whether there are newer ones. Rank 0 looks first, and renames damaged ones."""
    store, checkpoint, newest = CheckpointStore(folder.checkpoints), None, 0
    for is_my_turn in (processes.is_main, not processes.is_main):
        if is_my_turn:
            checkpoint = load_newest(store, say)
            newest = checkpoint.step if checkpoint else 0
            if wanted != "last":
                checkpoint = load_chosen(store, wanted)
        processes.barrier()
    step = checkpoint.step if checkpoint else 0
    told = f"checkpoint of step {step}, {store.digest(step)}" if step else "no checkpoint"
    processes.require_same("checkpoint", told, _share(folder.checkpoints))
    if checkpoint is not None:
        checkpoint = with_known_best(checkpoint, store)
    return checkpoint, step < newest


def _share(where: Path) -> str:
    return f"All nodes must see the same files below {where}: put [run] runs on a file system that they share."
