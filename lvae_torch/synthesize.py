"""``python -m lvae_torch.synthesize RUN_OR_CFG [--mode M]``: use a trained run, also under ``torchrun``."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lvae_torch.assembled_data import evaluation_statistics
from lvae_torch.cli import load_run_or_cfg, main, parser
from lvae_torch.data.dump import Dump
from lvae_torch.data.images import Images
from lvae_torch.distributed.processes import Processes, start_processes
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import write_json
from lvae_torch.hparams import Settings, load_text, shared_by_all
from lvae_torch.models.contract import Model
from lvae_torch.reporting.console import table
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.locks import held
from lvae_torch.synthesis.codes import CodePrior, CodeSource, check_prior
from lvae_torch.synthesis.modes import MODES, Mode
from lvae_torch.synthesis.session import Session
from lvae_torch.training.loop import load_finished
from lvae_torch.wiring import (
    build_model,
    make_preprocess,
    open_dump,
    run_folder,
)


def command(argv: Sequence[str]) -> None:
    """Run the modes that the arguments or the settings ask for."""
    arguments = parser("synthesize", "Use a trained run.", "run", "a run's name or folder, or its .cfg file")
    arguments.add_argument("--mode", choices=list(MODES), action="append", help="instead of the cfg's; may be repeated")
    arguments.add_argument("--runs", default="runs", help="folder of all runs, where a name is given")
    options = arguments.parse_args(argv)
    settings = load_run_or_cfg(options.run, options.overrides, options.runs)
    given = settings.synthesis.mode
    synthesize(settings, options.mode or ([given] if isinstance(given, str) else list(given)))


def synthesize(settings: Settings, modes: Sequence[str]) -> None:
    """Run ``modes`` one after the other; results in ``runs/<name>/synthesis/<mode>/``.

    Raises:
        UserError: if there is no such run, checkpoint or data.
    """
    with start_processes(settings.run.device, settings.train.timeout_minutes) as processes:
        processes.require_same("settings", shared_by_all(settings), "Start every node with the same command.")
        checkpoint = load_checkpoint(settings)
        told = f"checkpoint of step {checkpoint['state']['step']}"
        processes.require_same("checkpoint", told, "If the run is being trained, name one: [synthesis] checkpoint.")
        model = load_model(settings, checkpoint, processes)
        with _statistics(settings, model, processes):
            for name in modes:
                _run_mode(settings, checkpoint, model, processes, name)


def _run_mode(settings: Settings, checkpoint: dict[str, Any], model: Model, processes: Processes, name: str) -> None:
    session = _session(settings, checkpoint, model, processes, name, MODES[name])
    with _results_folder(session.out) if processes.is_main else nullcontext():
        processes.barrier()
        if MODES[name].draws_codes and settings.synthesis.prior_run:
            session = replace(session, prior=_load_prior(settings, session))
        metrics = MODES[name].run(session)
        if processes.is_main:
            write_json(session.out / "metrics.json", {**session.identity, **metrics})
    if processes.is_main:
        print(table(f"{settings.run.name}: {name}", _rows({**metrics, "results": str(session.out)})))


@contextmanager
def _results_folder(folder: Path) -> Iterator[None]:
    """For this process alone, so that no two mix their results; gone again if nothing came of it."""
    with held(folder.with_name(f"{folder.name}.lock"), folder, "Wait for it, or stop it."):
        folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # that it is not empty is well
                folder.rmdir()


def _statistics(settings: Settings, model: Model, processes: Processes) -> AbstractContextManager[None]:
    """The batch norm statistics that the run is evaluated with; those of training where its data is not there."""
    if settings.val.batch_norm == "running":
        return nullcontext()
    try:
        dump = open_dump(settings)
    except DataError as error:
        if processes.is_main:
            say(f"{error}\nGoing on with the statistics that trailed the training.")
        return nullcontext()
    training = dump.split(settings.data.train_split, limit=settings.data.limit_train)
    images = Images(training, make_preprocess(settings, dump.n_levels))
    return evaluation_statistics(settings, model, images, processes)


def load_checkpoint(settings: Settings) -> dict[str, Any]:
    """The checkpoint that ``[synthesis] checkpoint`` names, of a run with this ``[model]``.

    Raises:
        DataError: if there is none such.
        CfgError: if the run is of another model.
    """
    folder, which = run_folder(settings), settings.synthesis.checkpoint
    if not folder.checkpoints.is_dir():
        raise DataError(f"{folder.path}: no checkpoints there. Train it: python -m lvae_torch.train CFG")
    store = CheckpointStore(folder.checkpoints)
    checkpoint = load_finished(store) if which == "last" else store.load(int(which) if which.isdecimal() else "best")
    trained = load_text(checkpoint["meta"]["settings"], f"{folder.path}: the checkpoint's settings")
    if trained.model != settings.model:
        raise CfgError(f"{folder.path}: this run was trained with another [model] section; leave it as it was.")
    return checkpoint


def load_model(settings: Settings, checkpoint: dict[str, Any], processes: Processes) -> Model:
    """The trained model on its device, in evaluation mode; averaged weights where the settings ask for them."""
    data = checkpoint["meta"]["data"]
    model: Any = build_model(settings, tuple(data["image_shape"]), data["n_levels"])
    weights = checkpoint["ema"] if settings.synthesis.use_ema and checkpoint["ema"] is not None else checkpoint["model"]
    model.load_state_dict(weights)
    memory_format = torch.channels_last if settings.train.channels_last else torch.preserve_format
    model.to(device=processes.device, memory_format=memory_format)
    result: Model = model.eval()
    return result


def _load_prior(settings: Settings, session: Session) -> CodePrior:
    """The run that ``[synthesis] prior_run`` names.

    Raises:
        CfgError: if there is no such run, or this run's latents are no codes.
        DataError: if it has no checkpoint, or was trained on codes of another model.
    """
    name = str(settings.synthesis.prior_run)
    theirs = load_run_or_cfg(name, [], settings.run.runs)
    checkpoint = load_checkpoint(theirs)
    data = checkpoint["meta"]["data"]
    channels, height, width = data["image_shape"]
    check_prior(session.model, settings.run.name, name, (channels, height, width), data["n_levels"])
    remedy = "Encode again ([synthesis] codes_to), and train the prior on that."
    session.check_belongs(data.get("codes_of") or {}, run_folder(theirs).path, remedy)
    model = load_model(theirs, checkpoint, session.processes)
    return CodePrior(model, data["n_levels"], {"prior_run": name, "prior_step": checkpoint["state"]["step"]})


def _code_source(settings: Settings, dump: Dump) -> CodeSource:
    """All images of both splits, but of training only as many as the run was trained on."""
    preprocess, data = make_preprocess(settings, dump.n_levels), settings.data
    limits = {data.train_split: data.limit_train, data.val_split: 0}
    splits = {split: Images(dump.split(split, limit), preprocess) for split, limit in limits.items()}
    labels = {split: dump.labels(split) for split in limits}
    return CodeSource(
        Path(data.dumps), splits, {s: None if of is None else of[: len(splits[s].split)] for s, of in labels.items()}
    )


def _session(
    settings: Settings, checkpoint: dict[str, Any], model: Model, processes: Processes, name: str, mode: Mode
) -> Session:
    options, meta = settings.synthesis, checkpoint["meta"]
    use_ema = options.use_ema and checkpoint["ema"] is not None
    identity: dict[str, Any] = {
        "run": settings.run.name,
        "step": checkpoint["state"]["step"],
        "weights": "ema" if use_ema else "raw",
        "mode": name,
        "trained_on": f"{meta['data']['dataset']} {meta['data']['content_hash'][:12]}",
    }
    if getattr(settings.model, "bins", "exact") == "overlapping":
        identity["bins"] = "overlapping, as published: about 0.04 bits/dim too good with 5 bits"
    images, labels, names, steps_per_epoch, code_source = None, None, None, 1, None
    if mode.reads_images:
        dump = open_dump(settings)
        split = options.split or (settings.data.train_split if mode.of_training else settings.data.val_split)
        if list(dump.image_shape) != meta["data"]["image_shape"]:
            raise DataError(
                f"{dump.folder}: images {dump.image_shape}; the run was trained on {meta['data']['image_shape']}."
            )
        if settings.data.verify and processes.is_main:
            dump.verify(split)
        preprocess = make_preprocess(settings, dump.n_levels)
        if preprocess.levels_after != meta["data"]["n_levels"]:
            raise DataError(
                f"{dump.folder}: {preprocess.levels_after} levels after [data] binarize and n_bits, but the run was "
                f"trained on {meta['data']['n_levels']}. Set them as they were."
            )
        chosen = dump.split(split)
        images = Images(chosen, preprocess, _count(options.limit, len(chosen)))
        labels, names = dump.labels(split), dump.names(split)
        n_training = dump.counts.get(settings.data.train_split, 0)
        n_training = min(n_training, settings.data.limit_train or n_training)
        steps_per_epoch = n_training // settings.train.batch_size or 1
        identity |= {
            "dataset": dump.dataset,
            "split": split,
            "n_images": len(images.indices),
            "content": dump.content_hash[:12],
            "preprocessing": f"binarize {preprocess.binarize}, n_bits {preprocess.n_bits}, "
            f"dequantize {preprocess.dequantize}",
            "batch_norm": settings.val.batch_norm,
        }
        if dump.provenance.get("other_files"):
            identity["source_files"] = "not upstream's"
        code_source = _code_source(settings, dump) if options.codes_to else None
    out = run_folder(settings).synthesis(name)
    return Session(
        model, options, processes, out, identity, images, labels, steps_per_epoch, names, code_source=code_source
    )


def _count(limit: float, n_images: int) -> int:
    """How many images ``[synthesis] limit`` means."""
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
        name for name, value in metrics.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    return [(name, text(value)) for name, value in metrics.items() if name not in records]


if __name__ == "__main__":
    main(command)
