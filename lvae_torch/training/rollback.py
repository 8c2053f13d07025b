"""What happens to a run that diverged: back to its last good checkpoint, or an end that says how to go on from it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.memory import settled_objects
from lvae_torch.errors import Diverged, NumericalError, say
from lvae_torch.runs.checkpoint import load_chosen, with_known_best
from lvae_torch.training.loop import Run, fit, restore, save

Batches = Callable[[int], AbstractContextManager[Iterator[Labelled]]]
"""The first step -> endless batches from there on."""


def fit_or_go_back(run: Run, batches: Batches, rewind: Callable[[], None]) -> None:
    """``fit``, and after a divergence again from the last good checkpoint, as often as the plan allows.

    Args:
        rewind: called after the run went back.
    Raises:
        NumericalError: if it diverged once more; what it ruined is set aside, so that the next start is a good one.
    """
    while True:
        try:
            with batches(run.state.step) as images, settled_objects(run.processes.device):
                fit(run, images)
            return
        except Diverged as reason:
            go_back(run, reason)
            rewind()


def go_back(run: Run, reason: Diverged) -> None:
    """Make the last good checkpoint the newest, and continue from it if the plan allows."""
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
    if used >= run.plan.rollback:
        by_itself = "[train] rollback = 3 goes back by itself." if not used else f"It went back {used} times already."
        raise NumericalError(
            f"{reason} {where}{ruined} Lower [optimizer] learning_rate or set clip_norm, and repeat the command: it "
            f"goes on from step {good}. {by_itself}"
        )
    restore(run, with_known_best(load_chosen(run.store, good), run.store))
    run.state.rollbacks = used + 1
    run.train_step.follow(run.state, run.plan.rollback_rate)
    save(run, is_best=run.state.best_step == good)  # so that a kill does not forget the count
    run.store.wait()
    run.processes.barrier()
    if run.processes.is_main:
        rate = f"the learning rate is {run.train_step.rate_at(good):.3g}"
        say(f"{reason} {where}{ruined} Going back to it, {used + 1} of {run.plan.rollback} times; {rate}.")
