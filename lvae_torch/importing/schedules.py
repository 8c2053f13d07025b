"""Where our schedules differ from those of an imported run, in numbers."""

from collections.abc import Callable, Iterator

from lvae_torch.elbo.objective import beta_schedule
from lvae_torch.hparams import Settings
from lvae_torch.training.optimization import learning_rate

POINTS = 2000  # steps that are compared, spread over what is left of the run
UNKNOWN_LENGTH = 1_000_000  # steps looked ahead, where the length is in epochs
ALIKE = 1e-6


def told_differences(settings: Settings, exact: Settings, step: int) -> Iterator[str]:
    """A line for the learning rate and one for beta, where ``settings`` differ from ``exact`` after ``step``."""
    if settings.optimizer != exact.optimizer:
        yield from _told(step, settings, "the learning rate", _rate(settings), _rate(exact))
        if settings.optimizer.weight_decay != exact.optimizer.weight_decay:
            yield (
                f"weight decay is {settings.optimizer.weight_decay:g} here, {exact.optimizer.weight_decay:g} there. "
                "--exact takes theirs."
            )
    if settings.loss.beta != exact.loss.beta:
        yield from _told(step, settings, "beta", _beta(settings), _beta(exact))


def _told(
    step: int, settings: Settings, what: str, ours: Callable[[int], float], theirs: Callable[[int], float]
) -> Iterator[str]:
    last = max(step + 1, _length(settings, step))
    steps = sorted({step + (last - step) * i // POINTS for i in range(POINTS + 1)})
    differing = [at for at in steps if abs(ours(at) - theirs(at)) > ALIKE * max(abs(ours(at)), abs(theirs(at)))]
    if not differing:
        return
    most = max(differing, key=lambda at: abs(ours(at) - theirs(at)))
    yield (
        f"{what} differs from theirs: at step {step:,} {_both(ours(step), theirs(step))}; most at step {most:,}, "
        f"{_both(ours(most), theirs(most))}. --exact takes theirs."
    )


def _both(ours: float, theirs: float) -> str:
    ratio = f", {ours / theirs:.2f} times theirs" if theirs else ""
    return f"{ours:.4g} here, {theirs:.4g} there{ratio}"


def _length(settings: Settings, step: int) -> int:
    steps = settings.train.steps
    return steps if isinstance(steps, int) else step + UNKNOWN_LENGTH


def _rate(settings: Settings) -> Callable[[int], float]:
    return learning_rate(settings.optimizer, _length(settings, 0))


def _beta(settings: Settings) -> Callable[[int], float]:
    return beta_schedule(settings.loss.beta)
