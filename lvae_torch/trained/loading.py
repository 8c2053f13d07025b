"""Loads a trained run by name, folder or bundle; builds new models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from lvae_torch.data.classes import ClassNames, with_labels
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import open_dump
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributed.place import Device, choose_device
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.evaluation import take_statistics
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import NAME, check_name, place_of
from lvae_torch.hparams import (
    Settings,
    check_same_model,
    load,
    load_in_place,
    load_text,
    model_section,
    to_cfg,
    trained_settings,
)
from lvae_torch.models.contract import Model
from lvae_torch.runs.bundle import SETTINGS, WEIGHTS, Bundle, is_bundle
from lvae_torch.runs.bundle_zip import unzipped
from lvae_torch.runs.checkpoint import About, Checkpoint, load_chosen, store_of
from lvae_torch.runs.folder import RunFolder, runs_told
from lvae_torch.runs.state_file import read_safely
from lvae_torch.synthesis.codes import CodePrior, check_prior
from lvae_torch.synthesis.identity import check_belongs
from lvae_torch.trained.checking import checked_levels, checked_shape
from lvae_torch.trained.hub import SCHEME, Address, fetched
from lvae_torch.trained.run import TrainedRun
from lvae_torch.training.wrapping import place


def load_run(
    run: str | Path,
    *,
    device: Device | torch.device = "auto",
    checkpoint: Literal["last", "best", "good"] | int = "last",
    weights: Literal["averaged", "raw"] = "averaged",
    runs: str | Path = "runs",
    prior: str | None = None,
    settings: str | Sequence[str] = (),
) -> TrainedRun:
    """Load a trained run for use.

    Args:
        run: a run's name, its folder, one of its checkpoints (.pt), or a bundle (``lvae export``): a folder, a .zip, or
            ``hf://user/name[@revision]``.
        checkpoint: ``last`` is the best one of a run that was finished with patience; ``best``; ``good``, the last one
            before training went wrong; or the number of a step.
        weights: the averaged ones, where the run has them, or those that training left.
        runs: the folder of all runs, where a name is given.
        prior: of a VQ-VAE, the run that models its codes, such as a PixelCNN's; samples then come from it.
        settings: one or several, other than the run's, as ``--set`` of the commands takes them:
            ``["data.dumps=elsewhere"]``.
    Raises:
        CfgError: if the run does not exist.
        DataError: if the checkpoint does not exist, or a file is damaged.
        ValueError: if there are no such ``weights``.
    """
    if weights not in ("averaged", "raw"):
        raise ValueError(f"weights is {weights!r}; use averaged or raw.")
    asked = [f"run.device={str(device)!r}", f"synthesis.checkpoint={str(checkpoint)!r}"]
    asked += [f"synthesis.use_ema={weights == 'averaged'}"]
    asked += [f"synthesis.prior_run={prior!r}"] if prior else []
    asked += [settings] if isinstance(settings, str) else settings
    found, where = find_run(run, asked, runs)
    processes = Processes(0, 1, choose_device(found.run.device))
    return with_prior(open_run(found, where, processes), processes)


def open_alone(settings: Settings, where: Path, device: Device | None = None) -> TrainedRun:
    """``open_run`` in a process without peers, on ``device``, or on the one that ``[run]`` names."""
    return open_run(settings, where, Processes(0, 1, choose_device(device or settings.run.device)))


def with_prior(run: TrainedRun, processes: Processes) -> TrainedRun:
    """The same run, with the prior over its codes if ``[synthesis] prior_run`` names one; see ``load_prior``."""
    return replace(run, prior=load_prior(run, processes)) if run.settings.synthesis.prior_run else run


def load_prior(run: TrainedRun, processes: Processes) -> CodePrior:
    """Load the run that ``[synthesis] prior_run`` names.

    Raises:
        CfgError: if it does not exist, or the latents of ``run`` are no codes.
        DataError: if it has no checkpoint, or was trained on codes of another model.
    """
    name = str(run.settings.synthesis.prior_run)
    prior = open_run(*find_run(name, [], run.settings.run.runs), processes)
    on = prior.trained_on
    check_prior(run.model, run.name, name, on.image_shape, on.n_levels, on.classes)
    remedy = "Encode again ([synthesis] codes_to), and train the prior on that."
    check_belongs(on.codes_of or {}, run.identity, prior.place, remedy)
    return CodePrior(prior.model, on.n_levels, {"prior_run": name, "prior_step": prior.step})


def build_model(
    family: str,
    image_shape: ImageShape,
    levels: int = 256,
    classes: int = 0,
    section: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Model:
    """Build a new model, with keys as in ``[model]`` of a cfg: ``build_model("vae", (1, 28, 28), levels=2)``.

    Args:
        image_shape: (C, H, W).
        levels: pixel levels: 2 for binary images, 256 for 8 bits; 0 for continuous values.
        classes: how many there are, for ``class_embedding="top"`` or ``"every_layer"``.
        section: keys that share a name with an argument, such as ``{"levels": [8, 4, 4]}`` of a VQ-VAE.
    Raises:
        CfgError: listing all problems.
        ValueError: if there can be no images of such a shape and such levels.
    """
    shape, n_levels = checked_shape(image_shape), checked_levels(levels)
    return model_section(family, {**keys, **(section or {})}).build(shape, n_levels, classes)


def find_run(run: str | Path, overrides: Sequence[str] = (), runs: str | Path = "runs") -> tuple[Settings, Path]:
    """The settings that a run was trained with, with overrides applied, and the folder of its weights.

    Args:
        run: a run's name or folder, a bundle (a folder, a .zip, or ``hf://user/name[@revision]``), one checkpoint
            (.pt), or the .cfg file of a run; with ``@best``, ``@good``, ``@last`` or ``@STEP`` behind it, that
            checkpoint.
    Raises:
        CfgError: if none of these exists, or its settings are wrong.
        DataError: if a bundle is damaged or cannot be had.
    """
    runs = place_of(runs, "runs")
    if str(run).startswith(SCHEME):
        address = Address.of(str(run))
        return _of_bundle(fetched(address), address.name, overrides, runs)
    path = place_of(run, "the run")
    if "@" in path.name and not path.exists():  # RUN@best; no name has an @
        stem, _, which = path.name.rpartition("@")
        return find_run(path.with_name(stem), [*overrides, f"synthesis.checkpoint={which!r}"], runs)
    if path.suffix == ".cfg":
        settings = load_in_place(path, overrides)
        return settings, RunFolder.of(settings.run).path
    if path.name == WEIGHTS and path.is_file():
        path = path.parent
    if path.suffix == ".zip" and path.is_file():
        path = unzipped(path)
    named = RunFolder(runs, str(run)).path if NAME.fullmatch(str(run)) else path
    if path.is_file() and (path.suffix == ".pt" or not (named / SETTINGS).is_file()):  # any file may have a run's name
        return _of_file(path, overrides, runs)
    if is_bundle(path):
        return _of_bundle(path, path.resolve().name, overrides, runs)
    folder = path if (path / SETTINGS).is_file() else named
    if not (folder / SETTINGS).is_file():
        raise CfgError(f"{run}: {_why_not(folder, runs)}")
    # The folder may have been moved since: what is asked for by its place is found at its place.
    return load(folder / SETTINGS, [*_at(folder), *overrides]), folder


def _of_bundle(folder: Path, name: str, overrides: Sequence[str], runs: str | Path) -> tuple[Settings, Path]:
    """A bundle: results go to the folder of all runs, under its name."""
    named = [f"run.name={name!r}"] if NAME.fullmatch(name) else []
    return load(_settings_in(folder), [*named, f"run.runs={str(runs)!r}", *overrides]), folder


def _at(folder: Path) -> list[str]:
    """The overrides that make results go to where the run lies."""
    folder = folder.resolve()
    name = check_name(folder.name, f"{folder}: its name, which is the run's,")
    return [f"run.runs={str(folder.parent)!r}", f"run.name={name!r}"]


def _of_file(path: Path, overrides: Sequence[str], runs: str | Path) -> tuple[Settings, Path]:
    """A checkpoint on its own: it holds settings and weights. Results go to its run, or to one of its run's name."""
    about = Checkpoint.read(read_safely(path), path).about
    folder = path.resolve().parent.parent
    is_in_run = path.resolve().parent.name == "checkpoints" and NAME.fullmatch(folder.name)
    at = _at(folder) if is_in_run else [f"run.runs={str(runs)!r}"]
    return load_text(about.settings, f"{path}: its settings", [*at, *overrides]), path


def _why_not(folder: Path, runs: Path) -> str:
    """What is missing where a run was looked for, and what to do."""
    if checkpoints := sorted((folder / "checkpoints").glob("step_*.pt")):
        return (
            f"the run's {SETTINGS} is missing in {folder}. Restore it, or name a checkpoint, which holds settings and "
            f"weights: {checkpoints[-1]}"
        )
    return (
        f"there is no such run, bundle, checkpoint or .cfg file ({folder / SETTINGS} does not exist). "
        f"Runs: {runs_told(runs)}. "
        "Train it: lvae train CFG"
    )


def _settings_in(bundle: Path) -> Path:
    if not (bundle / SETTINGS).is_file():
        raise DataError(f"{bundle}: no whole bundle, {SETTINGS} is missing. Copy or download it again.")
    return bundle / SETTINGS


def open_run(settings: Settings, where: Path, processes: Processes) -> TrainedRun:
    """Load the model of a run or bundle to its device, with the checkpoint and weights that ``[synthesis]`` selects.

    Raises:
        DataError: if the checkpoint does not exist, or a file is damaged.
        CfgError: if the weights belong to another model.
    """
    bundle, about = _bundle_of(settings, where) if is_bundle(where) else _from_checkpoint(settings, where)
    on = bundle.trained_on
    model = settings.model.build(on.image_shape, on.n_levels, len(on.classes))
    try:
        model.load_state_dict(bundle.weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise DataError(
            f"{where}: its weights are not those of its {SETTINGS} ({' '.join(first).strip()}). Copy both anew."
        ) from error
    place(settings.train, model, processes.device)
    told, device = bundle.versions, processes.device
    run = TrainedRun(settings, model.eval(), bundle.step, bundle.is_averaged, on, where, device, versions=told)
    return run if settings.val.batch_norm == "running" else _with_statistics(run, about, processes)


def _from_checkpoint(settings: Settings, folder: Path) -> tuple[Bundle, About]:
    which, use_ema = settings.synthesis.checkpoint, settings.synthesis.use_ema
    if folder.is_file():
        checkpoint = Checkpoint.read(read_safely(folder), folder)
        if which not in ("last", str(checkpoint.step)):
            raise CfgError(f"{folder}: the checkpoint of step {checkpoint.step}; [synthesis] checkpoint = {which}.")
    else:
        store = store_of(folder / "checkpoints")
        checkpoint = load_chosen(store, int(which) if which.isdecimal() else _named(which))
    check_same_model(settings.model, checkpoint.about, folder, "Leave [model] as it was.")
    about = checkpoint.about
    weights, is_averaged = checkpoint.weights(use_ema), checkpoint.is_averaged(use_ema)
    return Bundle(weights, checkpoint.step, is_averaged, about.trained_on, about.versions), about


def _named(which: str) -> Literal["last", "best", "good"]:
    return "best" if which == "best" else "good" if which == "good" else "last"


def _bundle_of(settings: Settings, folder: Path) -> tuple[Bundle, About]:
    bundle = Bundle.read(folder)
    if settings.synthesis.checkpoint not in ("last", str(bundle.step)) or (
        bundle.is_averaged and not settings.synthesis.use_ema
    ):
        kind = "averaged" if bundle.is_averaged else "raw"
        raise CfgError(
            f"{folder}: a bundle has one set of weights, those of step {bundle.step}, {kind}; ask for these."
        )
    saved = About(to_cfg(load(_settings_in(folder))), bundle.trained_on)
    check_same_model(settings.model, saved, folder, "Leave [model] as it was.")
    return bundle, saved


def _with_statistics(run: TrainedRun, about: About, processes: Processes) -> TrainedRun:
    """The run with the batch norm statistics of the images that it was trained on; where these are not here, with those
    that trailed the training, and settings that say so."""
    try:
        training = _training_images(run, about)
    except (CfgError, DataError) as error:
        processes.say(f"{error}\nGoing on with the statistics that trailed the training.")
        val = run.settings.val.model_copy(update={"batch_norm": "running"})
        return replace(run, settings=replace(run.settings, val=val))
    take_statistics(run.model, training, run.settings.train.batch_size, run.settings.run.seed, processes)
    return run


def _training_images(run: TrainedRun, about: About) -> Images:
    """The images of the training, by the ``[data]`` of then: that of today may name others, to be scored.

    Raises:
        DataError: if they are not in the folder of dumps, or the dump of that name holds others.
        CfgError: if ``[data]`` does not fit the dump.
    """
    data = trained_settings(about, run.place).data.model_copy(update={"dumps": run.settings.data.dumps})
    dump, on = open_dump(data), run.trained_on
    preprocess = replace(run, settings=replace(run.settings, data=data)).preprocess_of(dump)
    on.check_same(
        dump.content_hash, dump.folder, ClassNames.of(dump, data.train_split).labels_hash if on.classes else ""
    )
    return Images(with_labels(dump.split(data.train_split, data.limit_train), dump, on.classes), preprocess)
