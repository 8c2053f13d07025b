"""``python -m lvae_torch.synthesize RUN [--mode M]``: use a trained run, also under ``torchrun``."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lvae_torch.cli import add_runs, begin, main, parser
from lvae_torch.synthesis.modes import MODES, Mode, runner

PARSER = parser("synthesize", "run", "a run's name or folder, a bundle, a checkpoint, or a run's .cfg file")
TOLD = "what to do with the run, if not what its cfg says; may be repeated"
PARSER.add_argument("--mode", choices=list(MODES), action="append", help=TOLD)
add_runs(PARSER)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.data.classes import labels_identity, with_labels
from lvae_torch.data.dump import Dump
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import open_dump
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.cpu import half_told
from lvae_torch.distributed.memory import is_out_of_memory, memory_told
from lvae_torch.distributed.processes import Processes, start_processes
from lvae_torch.errors import CfgError, OutOfMemory
from lvae_torch.files import write_json
from lvae_torch.hparams import Settings, shared_by_all
from lvae_torch.models.half import use_bfloat16
from lvae_torch.reporting.console import table
from lvae_torch.reporting.grids import how_shown
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.locks import held
from lvae_torch.synthesis.codes import CodeSource
from lvae_torch.synthesis.section import SynthesisSection
from lvae_torch.synthesis.session import Session
from lvae_torch.trained.loading import find_run, load_prior, open_run
from lvae_torch.trained.run import TrainedRun
from lvae_torch.training.memory import AtOnce, most_at_once, needs_without_data
from lvae_torch.training.wrapping import choose_kernels, is_graphed

STATISTICS = ".statistics"
"""Folder beside the dumps for what modes keep of their images."""


def command(argv: Sequence[str]) -> None:
    """Run the modes that the arguments or the settings name."""
    options = PARSER.parse_args(argv)
    settings, where = find_run(options.run, options.overrides, options.runs)
    synthesize(settings, options.mode or settings.synthesis.modes, where)


def synthesize(settings: Settings, modes: Sequence[str], where: Path | None = None) -> None:
    """Run ``modes`` one after the other; results go to ``runs/<name>/synthesis/<mode>/``.

    Args:
        where: the run's folder or a bundle; by default the folder that ``[run]`` names.
    Raises:
        UserError: if run, checkpoint or data are missing.
    """
    where = where or RunFolder.of(settings.run).path
    with start_processes(settings.run.device, settings.train.timeout_minutes) as processes:
        _check_alone(processes, modes)
        processes.require_same("settings", shared_by_all(settings), "Start every node with the same command.")
        choose_kernels(settings.train, settings.run.deterministic, processes.device)
        run = open_run(settings, where, processes)
        told = f"checkpoint of step {run.step}"
        processes.require_same("checkpoint", told, "If the run is being trained, name one: [synthesis] checkpoint.")
        if settings.synthesis.precision == "bfloat16":
            _use_half(run, processes, modes)
        for name in modes:
            _run_mode(run, processes, name)


def _check_alone(processes: Processes, modes: Sequence[str]) -> None:
    """
    Raises:
        CfgError: if one of the modes would let the other processes wait until they give up.
    """
    if processes.world > 1 and (alone := [name for name in modes if MODES[name].is_of_one_process]):
        raise CfgError(
            f"--mode {alone[0]}: its work cannot be divided among {processes.world} processes. Start it by itself, "
            "without torchrun."
        )


def _use_half(run: TrainedRun, processes: Processes, modes: Sequence[str]) -> None:
    """
    Raises:
        CfgError: if one of the modes, which the command may have named, needs full precision.
    """
    if problems := list(run.settings.synthesis.model_copy(update={"mode": tuple(modes)}).problems()):
        raise CfgError(f"[synthesis] {problems[0]}.")
    use_bfloat16(run.model)
    if told := half_told(processes.device, "bfloat16"):
        processes.say(told)


def _run_mode(run: TrainedRun, processes: Processes, name: str) -> None:
    mode = MODES[name]
    session = _session(run, processes, name, mode)
    with _results_folder(session.out) if processes.is_main else nullcontext():
        processes.barrier()
        if mode.draws_codes and run.settings.synthesis.prior_run:
            session = replace(session, prior=load_prior(run, processes))
        metrics = _metrics(session, name)
        if processes.is_main:
            options = session.options
            drawn = {"seed": options.seed, "batch_size": options.batch_size, "precision": options.precision}
            metrics = {**({"pictures": shown} if (shown := how_shown(run.model.image_shape)) else {}), **metrics}
            write_json(session.out / "metrics.json", {**session.identity, **drawn, **metrics})
    if processes.is_main:
        print(table(f"{run.name}: {name}", _rows({**metrics, "results": str(session.out)})))


def _metrics(session: Session, mode: str) -> dict[str, object]:
    """What a mode found.

    Raises:
        OutOfMemory: naming the keys to lower, and to what.
    """
    try:
        return runner(mode)(session)
    except Exception as reason:
        if not is_out_of_memory(reason):
            raise
        options, device = session.options, session.processes.device
        keys = MODES[mode].at_once
        ways = " and ".join(f"{key} = {max(1, getattr(options, key) // 2)}" for key in keys)
        raise OutOfMemory(
            f"There is not enough memory: {mode} takes {getattr(options, keys[0])} images at once, and "
            f"{memory_told(device)}. Set [synthesis] {ways}, and repeat the command; finished parts stay."
        ) from reason


@contextmanager
def _results_folder(folder: Path) -> Iterator[None]:
    """Lock and make the folder of results, so that two processes cannot mix theirs; remove it if it stays empty."""
    with held(folder.with_name(f"{folder.name}.lock"), folder, "Wait for it, or stop it."):
        folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _session(run: TrainedRun, processes: Processes, name: str, mode: Mode) -> Session:
    """Make the session of a mode, with the images of its split if it reads images."""
    settings = run.settings
    out = RunFolder.of(settings.run).synthesis(name)
    options = _with_chunk(run, processes) if name == "likelihood" else settings.synthesis
    session = Session(run.model, options, processes, out, _identity(run, name))
    graphed = is_graphed(settings.train, processes.device)
    session = replace(session, classes=run.trained_on.classes, is_graphed=graphed)
    if not mode.reads_images:
        return session
    dump, split = open_dump(settings.data), settings.synthesis.split
    split = split or (settings.data.train_split if mode.of_training else settings.data.val_split)
    preprocess = run.preprocess_of(dump)
    if settings.data.verify and processes.is_main:
        dump.verify(split)
    chosen = with_labels(dump.split(split), dump, run.trained_on.classes)
    images = Images(chosen, preprocess, _count(settings.synthesis.limit, len(chosen)))
    n_training = dump.counts.get(settings.data.train_split, 0)
    n_training = min(n_training, settings.data.limit_train or n_training)
    return replace(
        session,
        identity={**session.identity, **_identity_of_images(settings, dump, split, images)},
        given_images=images,
        labels=dump.labels(split),
        label_names=dump.label_names,
        names=dump.names(split),
        val_split=settings.data.val_split,
        steps_per_epoch=n_training // settings.train.batch_size or 1,
        cache=Path(settings.data.dumps) / STATISTICS / dump.dataset,
        code_source=_code_source(settings, dump, preprocess) if settings.synthesis.codes_to else None,
    )


def _with_chunk(run: TrainedRun, processes: Processes) -> SynthesisSection:
    """The options with a number in place of ``chunk = 0``."""
    settings, on, n = run.settings, run.trained_on, run.settings.synthesis.batch_size
    chunk = settings.synthesis.chunk_or_batch
    if settings.synthesis.chunk == 0 and processes.device.type == "cuda":
        build = partial(settings.model.build, on.image_shape, on.n_levels, len(on.classes))
        at_once = AtOnce.of(settings.train, settings.val, n)
        found = needs_without_data(build, settings.train, settings.loss, at_once, of_card=True).evaluation
        chunk = most_at_once(found, found.weights, n, processes)
    return settings.synthesis.model_copy(update={"chunk": chunk})


def _identity(run: TrainedRun, mode: str) -> dict[str, Any]:
    remark = {"remark": run.settings.model.remark} if run.settings.model.remark else {}
    return {
        **run.identity,
        "mode": mode,
        **remark,
        **({"precision": "bfloat16"} if run.settings.synthesis.precision == "bfloat16" else {}),
    }


def _identity_of_images(settings: Settings, dump: Dump, split: str, images: Images) -> dict[str, Any]:
    p = images.preprocess
    other = {"source_files": "not upstream's"} if dump.provenance.get("other_files") else {}
    told = {} if images.split.labels is None else {"labels": labels_identity(dump, split)}
    return {
        "dataset": dump.dataset,
        "split": split,
        "n_images": len(images.indices),
        "content": dump.content_hash[:12],
        "preprocessing": f"binarize {p.binarize}, n_bits {p.n_bits}, dequantize {p.dequantize}",
        "batch_norm": settings.val.batch_norm,
        **told,
        **other,
    }


def _code_source(settings: Settings, dump: Dump, preprocess: Preprocess) -> CodeSource:
    """All images of the validation split, and those of the training split that the run was trained on."""
    data = settings.data
    limits = {data.train_split: data.limit_train, data.val_split: 0}
    splits = {split: Images(dump.split(split, limit), preprocess) for split, limit in limits.items()}
    labels = {split: dump.labels(split) for split in limits}
    return CodeSource(
        Path(data.dumps), splits, {s: None if of is None else of[: len(splits[s].split)] for s, of in labels.items()}
    )


def _count(limit: float, n_images: int) -> int:
    """Number of images that ``[synthesis] limit`` selects."""
    return math.ceil(limit * n_images) if 0 < limit < 1 else int(limit)


def _rows(metrics: dict[str, object]) -> list[tuple[str, str]]:
    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4f}"
        if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
            return "  ".join("x".join(map(str, item)) for item in value)
        if isinstance(value, list):
            return f"{len(value)} items" if len(str(value)) > 200 else "  ".join(map(text, value))
        return str(value)

    records = [
        name
        for name, value in metrics.items()
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    ]
    return [(name, text(value)) for name, value in metrics.items() if name not in records]


if __name__ == "__main__":
    main(command)
