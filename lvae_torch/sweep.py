"""``python -m lvae_torch.sweep CFG... [--seed S]... [--jobs N] [--mode M]``: train runs, use each, and compare them.

The ordinary commands start every run as its own process, so repeating the sweep continues interrupted runs and skips
finished ones.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lvae_torch.cli import add_overrides, begin, main, new_parser, path_option
from lvae_torch.synthesis.modes import MODES

PARSER = new_parser("sweep")
PARSER.add_argument("cfgs", nargs="+", type=path_option, metavar="CFG", help="the .cfg files")
PARSER.add_argument(
    "--jobs", type=int, default=1, metavar="N", help="runs side by side (default 1), spread over the cards"
)
PARSER.add_argument("--seed", type=int, action="append", default=[], metavar="S", dest="seeds",
                    help="train each cfg with this seed; may be repeated, for the spread. Runs of another seed than "
                    "the cfg's lie in a folder of their own, RUNS/seed_S")  # fmt: skip
add_overrides(PARSER)
PARSER.add_argument("--mode", choices=list(MODES), action="append", default=[], dest="modes",
                    help="what to do with each trained run, if not what its cfg says; may be repeated")  # fmt: skip
PARSER.add_argument("--table", action="store_true", help="only show what there is already")
PARSER.add_argument("--out", type=path_option, help="write the table there too: .csv with all digits, else Markdown")
PARSER.add_argument("--with", type=path_option, metavar="FILE.csv", dest="earlier",
                    help="compare also with the runs of this table, which --out wrote, perhaps elsewhere")  # fmt: skip
PARSER.add_argument("--figures", type=path_option, metavar="FOLDER", help="draw the runs side by side there")
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.distributed.cards import cards_by_name
from lvae_torch.distributed.launcher import STARTED_BY
from lvae_torch.distributed.place import n_cores
from lvae_torch.distributed.signals import stop_signals
from lvae_torch.errors import CfgError, Preempted, say
from lvae_torch.files import write_text
from lvae_torch.hparams import Settings, load, load_in_place
from lvae_torch.reporting.comparison import Result, draw_comparison
from lvae_torch.reporting.result_tables import SETTINGS, read_results, results_csv, results_table
from lvae_torch.runs.folder import RunFolder

POLL = 0.2  # seconds
OUTPUT = "output.log"


@dataclass
class Job:
    """One run of the sweep: the commands still to do, and the process of the current one."""

    cfg: Path
    settings: Settings
    label: str
    """For people: the run's name, and its seed where there are several."""
    commands: deque[list[str]]
    process: "subprocess.Popen[bytes] | None" = None
    status: int = 0
    """Exit status of the first command that failed; as a shell has it, 128 and the signal's number of a killed one."""
    card: str | None = None
    """The card of the current command, as CUDA_VISIBLE_DEVICES calls it, where there are several."""
    started: float = 0.0
    """Time at which the first command began."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.settings.run)

    @property
    def needed(self) -> RunFolder | None:
        """The run whose weights it begins with."""
        given = self.settings.train.initial_run
        return None if given is None else RunFolder(self.folder.runs, given.partition("@")[0])

    @property
    def is_done(self) -> bool:
        return self.process is None and (not self.commands or self.status != 0)


def command(argv: Sequence[str]) -> None:
    """Train and compare the runs that the arguments name."""
    options = PARSER.parse_args(argv)
    jobs = plan(options.cfgs, options.overrides, options.modes, options.seeds)
    if options.jobs < 1:
        raise CfgError(f"--jobs is {options.jobs}; use a number of runs, at least 1.")
    earlier = read_results(options.earlier) if options.earlier else []
    if not options.table:
        work(jobs, options.jobs)
    results = together(earlier, [result_of(job) for job in jobs])
    print(table := results_table(results))
    if options.out:
        write_text(options.out, results_csv(results) if options.out.suffix == ".csv" else table + "\n")
    if options.figures:
        draw_comparison(options.figures, results)
    if failed := [job for job in jobs if job.status]:
        say(f"not finished: {', '.join(job.label for job in failed)}; see {OUTPUT} in each run's folder.")
        sys.exit(failed[0].status)


def result_of(job: Job) -> Result:
    """What is known of a run, with the settings that it was trained with, whatever those of this sweep are."""
    kept = job.folder.hparams_cfg
    settings = load(kept) if kept.is_file() else job.settings
    told = dict(zip(SETTINGS, (settings.run.seed, settings.train.precision), strict=True))
    return Result.of(job.folder, told, settings.evaluated_on)


def together(earlier: Sequence[Result], here: Sequence[Result]) -> list[Result]:
    """The runs of a table and those that are here, each once; what is here counts, if it has been evaluated.

    Runs of one name, with other seeds, follow one another.
    """
    here = [result for result in here if result.evaluation or not any(map(result.is_same_run, earlier))]
    kept = [next(filter(old.is_same_run, here), old) for old in earlier]
    results = [*kept, *(result for result in here if not any(map(result.is_same_run, earlier)))]
    names = [result.name for result in results]
    return sorted(results, key=lambda result: names.index(result.name))


def plan(cfgs: Sequence[Path], overrides: Sequence[str], modes: Sequence[str], seeds: Sequence[int] = ()) -> list[Job]:
    """Make the jobs, one for each cfg and seed, after checking every cfg.

    Raises:
        CfgError: listing the problems of all cfgs, names that two cfgs share, and loops of ``initial_run``.
    """
    jobs, problems = list[Job](), list[str]()
    for cfg in cfgs:
        try:
            changes = [[*overrides, *more] for more in _of_seeds(cfg, overrides, seeds)]
            jobs += [_job(cfg, all_, modes, tells_seed=len(changes) > 1) for all_ in changes]
        except CfgError as error:
            problems.append(str(error))
    needed = {job.folder: job.needed for job in jobs}
    problems += [
        f"{job.label}: begins, by way of initial_run, with its own weights."
        for job in jobs
        if _loops(job.folder, needed)
    ]
    labels = Counter(job.label for job in jobs)
    problems += [f"{label}: two of the cfgs have this run.name." for label, n in labels.items() if n > 1]
    if problems:
        raise CfgError("\n".join(problems))
    return jobs


def _of_seeds(cfg: Path, overrides: Sequence[str], seeds: Sequence[int]) -> list[list[str]]:
    """What each seed changes in a cfg: nothing where it is the cfg's own, or none is named."""
    if not seeds:
        return [[]]
    run = load_in_place(cfg, overrides).run
    places = {seed: str(Path(run.runs) / f"seed_{seed}") for seed in seeds}
    return [[] if seed == run.seed else [f"run.seed={seed}", f"run.runs={place!r}"] for seed, place in places.items()]


def _job(cfg: Path, overrides: Sequence[str], modes: Sequence[str], tells_seed: bool) -> Job:
    settings = load_in_place(cfg, overrides)
    arguments = [str(cfg), *("--set=" + override for override in overrides)]
    train = [sys.executable, "-m", "lvae_torch.train", *arguments]
    use = [sys.executable, "-m", "lvae_torch.synthesize", *arguments, *(f"--mode={mode}" for mode in modes)]
    is_used = modes or "mode" in settings.synthesis.model_fields_set
    label = f"{settings.run.name} (seed {settings.run.seed})" if tells_seed else settings.run.name
    return Job(cfg, settings, label, deque([train, use] if is_used else [train]))


def _loops(folder: RunFolder, needed: Mapping[RunFolder, RunFolder | None]) -> bool:
    seen, at = set[RunFolder](), needed[folder]
    while at is not None and at in needed and at not in seen:
        seen.add(at)
        at = needed[at]
    return folder in seen


def work(jobs: Sequence[Job], side_by_side: int) -> None:
    """Do all jobs, at most ``side_by_side`` at a time, each with its share of the cores, on the card with the fewest.

    Raises:
        Preempted: after a stop signal, when every run has saved and stopped.
    """
    threads, cards = max(1, n_cores() // side_by_side), cards_by_name()
    stopped: list[int] = []
    with ExitStack() as stack:
        for number in stop_signals():
            stack.callback(signal.signal, number, signal.signal(number, lambda n, frame: stopped.append(n)))
        while not all(job.is_done for job in jobs):
            running = [job for job in jobs if job.process is not None]
            if stopped:
                _end(running)
                raise Preempted("stopped by a signal; the same command continues.")
            for job in running:
                _look_after(job)
            for job in jobs:
                _give_up_if_unfounded(job, jobs)
            if len(running) < side_by_side and (waiting := [job for job in jobs if _may_start(job, jobs)]):
                waiting[0].card = freest(cards, running)
                _start(waiting[0], threads)
            else:
                time.sleep(POLL)


def freest(cards: Sequence[str], running: Sequence[Job]) -> str | None:
    """The card with the fewest running jobs, the first of several; None where there is no choice."""
    taken = Counter(job.card for job in running if job.process is not None)
    return min(cards, key=lambda card: taken[card]) if len(cards) > 1 else None


def _end(running: Sequence[Job]) -> None:
    """Ask all runs to stop at once, then wait, so that they save at the same time."""
    processes = [job.process for job in running if job.process is not None]
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _give_up_if_unfounded(job: Job, jobs: Sequence[Job]) -> None:
    """Fail a job that needs the weights of a failed run."""
    failed = next((other for other in jobs if other.folder == job.needed and other.status), None)
    if job.process is None and not job.is_done and failed:
        job.status = failed.status
        say(f"{job.label}: not started, for {failed.label} failed")


def _may_start(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether the job is idle and not done, and the run whose weights it needs is done."""
    needed = job.needed
    blocked = any(other.folder == needed and not other.is_done for other in jobs)
    return job.process is None and not job.is_done and not blocked


def _start(job: Job, threads: int) -> None:
    folder = job.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    job.started = job.started or time.monotonic()
    arguments = job.commands.popleft()
    say(f"{job.label}: {' '.join(arguments[1:3])} begins, output in {folder / OUTPUT}")
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    environment[STARTED_BY] = str(os.getpid())
    if job.card is not None:
        environment["CUDA_VISIBLE_DEVICES"] = job.card
    with open(folder / OUTPUT, "ab") as output:
        # A separate process group: Ctrl-C reaches only the sweep, which passes it on once.
        job.process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def _look_after(job: Job) -> None:
    assert job.process is not None
    status = job.process.poll()
    if status is None:
        return
    job.process, job.status = None, status if status >= 0 else 128 - status
    if status or not job.commands:
        minutes = (time.monotonic() - job.started) / 60
        told = f"failed with status {status}" if status else "done"
        say(f"{job.label}: {told} after {minutes:.1f} min")


if __name__ == "__main__":
    main(command)
