"""What a change between two starts of one run means for it, in its state and in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lvae_torch.data.order import TrainingOrder
from lvae_torch.distributed.place import n_cores
from lvae_torch.hparams import Difference, Settings, differences, format_differences, schedules_are_in_epochs
from lvae_torch.runs.checkpoint import NO_BEST, State
from lvae_torch.training.optimization import LearningRate, learning_rate, without_jump
from lvae_torch.training.section import OptimizerSection

Change = tuple[Difference, str]
"""What differs, and what that changes; empty where it speaks for itself."""
SCORED_ON = {("data", "val_split"), ("data", "limit_val"), ("val", "batch_norm")}
"""Keys that make scores those of other images, or of another model: they cannot be compared."""
LENGTH = {("train", "steps"), ("optimizer", "decay_end"), ("train", "batch_size")}
"""Keys that make a schedule longer or shorter."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which somebody asks for a number of threads."""
JUMP = 0.01  # of the peak rate: less is none
LEAD = 0.05  # of the steps that are left: how long the rate takes to a schedule of another length,
LEAST_LEAD = 10  # but at least so many steps, or all that are left


def continued(order: TrainingOrder, settings: Settings, step: int) -> TrainingOrder:
    """The order of today's batch size, which goes on where the one until ``step`` stood."""
    batch_size = settings.train.batch_size
    return order if batch_size == order.batch_size else order.with_batch(batch_size, step)


def after_changes(
    old: State,
    known: Settings,
    settings: Settings,
    order: TrainingOrder,
    unresolved: Settings,
    least_lead: int = LEAST_LEAD,
) -> State:
    """The state to go on with.

    Args:
        known: as the checkpoint was trained, in steps, like ``settings``.
        unresolved: today's, where epochs may still be epochs.
        least_lead: how many steps at least the rate takes to a schedule of another length, if so many are left.
    """
    changed = {(change.section, change.key) for change in differences(known, settings)}
    state = replace(old, anchor=tuple(order.anchor))
    if changed & SCORED_ON:
        state = replace(state, evaluated_at=0, last_nelbo=None, **NO_BEST)
    if ("train", "batch_size") in changed and schedules_are_in_epochs(unresolved):
        state = replace(state, origin=order.origin)
    if changed & LENGTH:
        state = replace(state, rate_from=_led(old, state, known, settings, least_lead))
    return state


def _led(old: State, state: State, known: Settings, settings: Settings, least_lead: int) -> Sequence[float]:
    """From which rate, and over how many steps, the rate comes to a schedule of another length without a jump."""
    step, total = state.step, settings.train.total_steps
    was = _schedule(_as_long_as(known, settings), known, old)
    before = without_jump(was, old.rate_from, old.origin)(step)  # it may still have been on its way to a longer one
    after = _schedule(settings.optimizer, settings, state)(step - state.origin)
    length = min(max(round(LEAD * (total - step)), least_lead), total - step)
    if step == 0 or length <= 0 or abs(after - before) <= JUMP * settings.optimizer.learning_rate:
        return old.rate_from
    return (step, before, length)


def _as_long_as(known: Settings, settings: Settings) -> OptimizerSection:
    """Today's section with the length that the schedule had: other changes, as of the peak, are meant to be jumps."""
    has_other_steps = known.train.batch_size != settings.train.batch_size
    keys = ("warmup_steps", "decay_start", "decay_end", "decay_steps") if has_other_steps else ("decay_end",)
    return settings.optimizer.model_copy(update={key: getattr(known.optimizer, key) for key in keys})


def _schedule(section: OptimizerSection, settings: Settings, state: State) -> LearningRate:
    return learning_rate(section, settings.train.total_steps - state.origin)


def settings_changed(
    known: Settings, settings: Settings, old: State, state: State, order: TrainingOrder
) -> Iterator[Change]:
    """Each key that changed, with what follows from it for the run."""
    for change in differences(known, settings):
        key = (change.section, change.key)
        told = []
        if key in SCORED_ON:
            told.append("scores cannot be compared with earlier ones: the best and patience begin anew")
        if key == ("train", "batch_size"):
            epoch, first = order.place(state.step)
            told.append(
                f"the order goes on at image {first:,} of epoch {epoch:,}; an epoch has {order.steps_per_epoch:,} steps"
            )
        if key in LENGTH and state.rate_from != old.rate_from:
            told.append(_rate_told(settings, state))
        yield change, "; ".join(told)


def _rate_told(settings: Settings, state: State) -> str:
    step, before, length = state.rate_from
    after = _schedule(settings.optimizer, settings, state)(int(step + length) - state.origin)
    way = "rises" if after > before else "falls"
    return (
        f"the {settings.optimizer.schedule} schedule has another length: from step {int(step):,} on the learning rate "
        f"{way} from {before:.3g} to {after:.3g} over {int(length):,} steps, then follows it"
    )


def threads_to_keep(known: Mapping[str, str], now: Mapping[str, str], environment: Mapping[str, str]) -> int | None:
    """The threads that a run on a CPU was computed on so far; None to leave their number as it is.

    It stays where the environment names one, where the machine has fewer cores, and where the bits differ anyway.
    """
    is_elsewhere = any(known.get(key) != now[key] for key in ("device", "processes"))
    threads = known.get("threads", "")
    if is_elsewhere or not threads or threads == now.get("threads") or any(map(environment.get, THREADS)):
        return None
    return int(threads) if int(threads) <= n_cores() else None


def places_changed(known: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    """Device, threads and processes, where they are known of both and differ."""
    for key in known.keys() & now.keys():
        if known[key] != now[key]:
            noise = " and noise" if key == "processes" else ""
            yield (
                Difference("where", key, known[key], now[key]),
                f"the last bits{noise} differ from those of a run without this change",
            )


def table_of(changes: Sequence[Change]) -> str:
    """All changes as one table; empty without any."""
    if not changes:
        return ""
    return format_differences([change for change, _ in changes], [effect for _, effect in changes])
