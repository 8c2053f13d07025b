"""The training loop: evaluate, save, stop or step. Calling it again after a stop continues the same run."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Protocol

from lvae_torch.cfg.section import whole
from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.evaluation import Evaluation
from lvae_torch.elbo.evaluator import Evaluator, TellPhase, silent
from lvae_torch.elbo.section import ValSection
from lvae_torch.errors import CfgError, DataError, Diverged, Preempted
from lvae_torch.runs.checkpoint import About, Checkpoint, State, Weights, load_chosen
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.training.meter import Reading
from lvae_torch.training.section import OptimizerSection, TrainSection
from lvae_torch.training.step import TrainStep

LONG = 60.0
"""Seconds of an evaluation that a checkpoint is written before."""
RUINED = 100.0
"""A run that ends worse than its best by so many times its size has failed; one that merely got worse has not."""


@dataclass(frozen=True)
class Plan:
    """The schedule of a run, in steps."""

    seed: int
    steps: int
    log_every: int
    evaluate_every: int
    """0 evaluates only at the end."""
    checkpoint_every: int
    max_skips_in_a_row: int = 100
    patience: int = 0
    """Evaluations without improvement after which the run stops and uses its best weights; 0 never stops early."""
    rollback: int = 0
    """How often a run that diverged goes back to its last good checkpoint."""
    rollback_rate: float = 1.0
    """Factor on the learning rate each time."""

    @classmethod
    def of(cls, seed: int, train: TrainSection, val: ValSection, optimizer: OptimizerSection) -> "Plan":
        """Make a plan from sections in which epochs are already converted to steps."""
        return cls(
            seed,
            steps=whole(train.steps),
            log_every=whole(train.log_every),
            evaluate_every=whole(val.every),
            checkpoint_every=whole(train.checkpoint_every),
            max_skips_in_a_row=optimizer.max_skips_in_a_row,
            patience=val.patience,
            rollback=train.rollback,
            rollback_rate=train.rollback_rate,
        )


class Watcher(Protocol):
    """Receives the events of the loop, on rank 0."""

    def begins(self, step: int, rollbacks: int = 0) -> None: ...

    def logged(self, step: int, reading: Reading, learning_rate: float, images_per_step: int) -> None: ...

    def evaluated(self, step: int, evaluation: Evaluation, seconds: float) -> None: ...


@dataclass
class Run:
    """A run and the objects it works with."""

    state: State
    plan: Plan
    train_step: TrainStep
    evaluate: Evaluator
    store: CheckpointStore
    about: About
    """Settings, data and versions, which every checkpoint records."""
    watcher: Watcher
    processes: Processes
    stop: StopRequest
    tell: TellPhase = silent
    phase: str = "training"
    """What is being done."""
    evaluation_seconds: float = inf
    """How long an evaluation takes, as far as this process knows; the same on all ranks."""
    saved_at: int = 0
    """The step of the last checkpoint, and the steps skipped until then."""
    skipped_at_save: int = 0
    was_mostly_taken: bool = True
    """Whether most of the steps before the last checkpoint were taken."""


def fit(run: Run, batches: Iterable[Labelled]) -> None:
    """Train from ``run.state.step`` to ``run.plan.steps``, or until patience runs out; ``batches`` is endless.

    Raises:
        CfgError: if the run has already taken more steps.
        Preempted: after a signal, on every rank at the same step, when everything is saved.
        Diverged: if the gradients of too many steps in a row were not finite, or the run ends without a finite number.
    """
    check_steps(run.state, run.plan)
    if run.processes.is_main:
        run.watcher.begins(run.state.step, run.state.rollbacks)
    try:
        _fit(run, iter(batches))
    except Preempted:
        _save_before_leaving(run)
        raise


def _fit(run: Run, images: Iterator[Labelled]) -> None:
    state, plan = run.state, run.plan
    while True:
        evaluated_before = state.evaluated_at
        is_best = _evaluate_if_due(run)
        is_done = state.step == plan.steps or has_lost_patience(run)
        is_new = run.saved_at != state.step
        # An evaluation of a restored step is saved too, so that a kill does not repeat it.
        evaluated_again = not is_new and state.evaluated_at != evaluated_before
        if is_best or evaluated_again or (is_new and (is_done or state.step % plan.checkpoint_every == 0)):
            save(run, is_best)
        if is_done:
            _choose_best(run)
            check_ended_well(run)
            return
        state.chosen_step = 0  # a finished run continues, so its choice no longer holds
        run.stop.ask()
        batch = next(images)
        # A resumed step draws the same noise; after a divergence it draws another, so that it does not come again.
        again = ("rollback", state.rollbacks) if state.rollbacks else ()
        seed_everything("train", plan.seed, run.processes.rank, state.step, *again)
        run.train_step(batch.images, state.step, batch.labels)
        state.step += 1
        if state.step % plan.log_every == 0 or state.step == plan.steps:
            _log(run, len(batch) * run.processes.world)
        if run.stop.agreed():
            raise Preempted(f"stopped at step {state.step} of {plan.steps} by {run.stop.reason}.")


def check_steps(state: State, plan: Plan) -> None:
    """
    Raises:
        CfgError: if the run has taken more steps than it should have.
    """
    if state.step > plan.steps:
        raise CfgError(f"[train] steps = {plan.steps}, but this run has taken {state.step} already; raise it.")


def has_lost_patience(run: Run) -> bool:
    """Whether patience has run out. All ranks have the same numbers, so they agree."""
    return 0 < run.plan.patience <= run.state.evaluations_since_best


def save(run: Run, is_best: bool = False) -> None:
    """Save a checkpoint of the current step; rank 0 writes it."""
    run.train_step.meter.share(run.processes)
    skipped = run.train_step.meter.skipped()
    if steps := run.state.step - run.saved_at:  # the same step saved again has the same steps before it
        lost = skipped - run.skipped_at_save
        run.was_mostly_taken = lost == 0 or 2 * lost < steps
    if run.processes.is_main:
        # Also where it is the best: while steps are skipped, averaged weights still come closer to what they average.
        checkpoint = run.train_step.checkpoint(run.state, run.about, run.evaluate.unfinished)
        run.store.save(run.state.step, checkpoint.as_dict(), is_best, run.was_mostly_taken and is_well(run.state))
    run.saved_at, run.skipped_at_save = run.state.step, skipped


def is_well(state: State) -> bool:
    """Whether neither the last evaluation nor the last log line is lost, or far off from the best there was."""
    return (
        not state.ends_lost
        and is_near(state.last_nelbo, state.best_nelbo)
        and is_near(state.last_logged, state.best_logged)
    )


def is_near(nelbo: float | None, best: float, times: float = 1.0) -> bool:
    """Whether a -ELBO, nats, is finite and not wildly worse than the best: by no more than so many times its size."""
    if nelbo is None:
        return True
    return math.isfinite(nelbo) and nelbo <= best + times * max(abs(best), 1.0)


def _save_before_leaving(run: Run) -> None:
    """All ranks leave after the save: torchrun gives those of a node little time once the first of them has ended."""
    run.tell("saving", run.state.step, run.plan.steps)
    save(run, is_best=run.state.best_step == run.state.step)
    run.store.wait()
    run.processes.barrier()


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Continue from a checkpoint that ``save`` wrote."""
    run.train_step.restore(checkpoint)
    run.state = checkpoint.state
    run.evaluate.unfinished = checkpoint.unfinished
    run.train_step.follow(run.state, run.plan.rollback_rate)
    run.saved_at, run.skipped_at_save = run.state.step, run.train_step.meter.skipped()
    run.was_mostly_taken = run.store.is_good(run.state.step)


def _evaluate_if_due(run: Run) -> bool:
    """Evaluate if the plan says so, at most once per step even after restarts; return whether it is the best so far."""
    state, plan = run.state, run.plan
    is_last = state.step == plan.steps
    is_due = is_last or (plan.evaluate_every > 0 and (state.step - state.origin) % plan.evaluate_every == 0)
    if not is_due or state.evaluated_at == state.step:
        return False
    if run.saved_at != state.step and (is_last or run.evaluation_seconds > LONG):
        save(run)
    # With patience, the last evaluation is that of the chosen weights.
    evaluation = _evaluated(run, is_last and not plan.patience, state.step)
    state.evaluated_at, state.last_nelbo = state.step, evaluation.nelbo
    is_best = math.isfinite(evaluation.nelbo) and evaluation.nelbo < state.best_nelbo
    state.evaluations_since_best += 1
    if is_best:
        state.best_step, state.best_nelbo, state.evaluations_since_best = state.step, evaluation.nelbo, 0
    return is_best


def _choose_best(run: Run) -> None:
    """With patience, evaluate the best weights as those of the finished run, once even after restarts.

    The last checkpoint keeps the weights of its own step, to continue from, and names the best step.
    """
    state = run.state
    if run.plan.patience == 0 or state.best_step == 0 or state.chosen_step == state.best_step:
        return
    run.store.wait()  # the best checkpoint may still be written
    run.processes.barrier()
    with run.train_step.evaluated_with(_best_weights(run)):
        state.last_nelbo = _evaluated(run, True, state.best_step).nelbo
    state.chosen_step = state.best_step
    save(run, is_best=state.best_step == state.step)


def _evaluated(run: Run, is_last: bool, step: int) -> Evaluation:
    """Evaluate the weights of ``step``, and tell what came out."""
    start, run.phase = time.monotonic(), "evaluating"
    evaluation = run.evaluate(is_last, f"step {step}")
    seconds = time.monotonic() - start
    run.evaluation_seconds, run.phase = run.processes.mean(seconds), "drawing pictures"
    if run.processes.is_main:
        run.watcher.evaluated(step, evaluation, seconds)
    run.phase = "training"
    return evaluation


def _best_weights(run: Run) -> Weights:
    try:
        return load_chosen(run.store, run.state.best_step).weights()
    except DataError as error:
        raise DataError(f"{error} It had the best weights; [val] patience = 0 trains on without them.") from error


def check_ended_well(run: Run) -> None:
    """
    Raises:
        Diverged: if what the run came to is not finite, or nothing beside its best.
    """
    state = run.state
    if state.last_nelbo is not None and not math.isfinite(state.last_nelbo):
        raise Diverged(f"step {state.step}: the last evaluation is not finite.")
    if not is_near(state.last_nelbo, state.best_nelbo, RUINED):
        best = f"the best, {state.best_nelbo:.2f} at step {state.best_step}"
        raise Diverged(f"step {state.step}: the last -ELBO, {state.last_nelbo:.2f} nats, is far above {best}.")
    if state.ends_lost:
        raise Diverged(f"step {state.step}: the gradients or losses of most of the last steps were not finite.")


def _log(run: Run, images_per_step: int) -> None:
    state, reading = run.state, run.train_step.meter.read(run.processes)
    state.ends_lost = reading.is_lost
    if reading.n_steps:
        state.last_logged = reading.nelbo
        state.best_logged = min(state.best_logged, reading.nelbo)
    if run.processes.is_main:
        run.watcher.logged(state.step, reading, run.train_step.rate_at(state.step - 1), images_per_step)
    if reading.not_finite_in_a_row > run.plan.max_skips_in_a_row:
        raise Diverged(
            f"step {state.step}: {reading.not_finite_in_a_row} steps in a row were skipped, for gradients that were "
            "not finite."
        )
