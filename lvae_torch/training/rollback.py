"""What happens to a run that diverged: back to its last good checkpoint, or an end that says how to go on from it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.memory import settled_objects
from lvae_torch.errors import Diverged, NumericalError, say
from lvae_torch.runs.checkpoint import Checkpoint, load_chosen, with_known_best
from lvae_torch.training.loop import Run, fit, restore, save

Batches = Callable[[int], AbstractContextManager[Iterator[Labelled]]]
"""The first step -> endless batches from there on."""
Holds = Callable[[Checkpoint], bool]
"""Whether the state of an earlier checkpoint is, as it was stored, the one to go on with under today's settings."""


def fit_or_go_back(run: Run, batches: Batches, rewind: Callable[[], None], holds: Holds) -> None:
    """``fit``, and after a divergence again from the last good checkpoint, as often as the plan allows.

    Args:
        rewind: called after the run went back.
        holds: asked of the good checkpoint; if its state does not, only a new start knows how to go on from it.
    Raises:
        NumericalError: if it diverged once more; what it ruined is set aside, so that the next start is a good one.
    """
    while True:
        try:
            with batches(run.state.step) as images, settled_objects(run.processes.device):
                fit(run, images)
            return
        except Diverged as reason:
            go_back(run, reason, holds)
            rewind()


def go_back(run: Run, reason: Diverged, holds: Holds) -> None:
    """Make the last good checkpoint the newest, and continue from it if the plan allows.

    Raises:
        NumericalError: if it does not, none is good, or the settings have changed since.
    """
    run.store.wait()
    run.processes.barrier()
    good, used = run.store.last_good(), run.state.rollbacks
    run.processes.barrier()  # all have looked before anything is renamed
    aside = run.store.set_aside(0 if good is None else good) if run.processes.is_main else []
    run.processes.barrier()
    ruined = f" Later ones ({', '.join(map(str, aside))}) are set aside as *.aside." if aside else ""
    if good is None:
        raise NumericalError(
            f"{reason} No checkpoint is good.{ruined} Lower [optimizer] learning_rate or set clip_norm, and repeat the "
            "command: the run begins anew."
        )
    where = f"{run.store.folder}: the checkpoint of step {good} is good."
    by_hand = (
        f"{reason} {where}{ruined} Lower [optimizer] learning_rate or set clip_norm, and repeat the command: it goes "
        f"on from step {good}."
    )
    if used >= run.plan.rollback:
        by_itself = "[train] rollback = 3 goes back by itself." if not used else f"It went back {used} times already."
        raise NumericalError(f"{by_hand} {by_itself}")
    checkpoint = with_known_best(load_chosen(run.store, good), run.store)
    if not holds(checkpoint):
        raise NumericalError(f"{by_hand} It did not go back by itself, for its settings have changed since that step.")
    restore(run, checkpoint)
    run.state.rollbacks = used + 1
    run.train_step.follow(run.state, run.plan.rollback_rate)
    save(run, is_best=run.state.best_step == good)  # so that a kill does not forget the count
    run.store.wait()
    run.processes.barrier()
    if run.processes.is_main:
        rate = f"the learning rate is {run.train_step.rate_at(good):.3g}"
        say(f"{reason} {where}{ruined} Going back to it, {used + 1} of {run.plan.rollback} times; {rate}.")
