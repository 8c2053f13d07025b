"""Checkpoints of openai/vdvae: raw and averaged weights, the optimizer's state, and which preset they belong to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop.cfg_text import cfg_text
from lvae_torch.interop.recognition import Found, Kind
from lvae_torch.interop.shapes import Shapes, check_shapes, first_difference
from lvae_torch.interop.taken import Moments, Part, Taken
from lvae_torch.interop.torch_files import check_sums, is_plain, states_of, updates_of
from lvae_torch.interop.vdvae import LEVELS, image_shape_of, renamed, section_from_reference
from lvae_torch.interop.vdvae_cfg import native_sections
from lvae_torch.interop.vdvae_presets import DEFAULTS, PRESETS

PROGRAM = "openai/vdvae"
MOMENTS = ("exp_avg", "exp_avg_sq")
ITERATION = re.compile(r"iter-(\d{1,12})")


@dataclass(frozen=True)
class Configuration:
    """Where the settings of a checkpoint come from."""

    hparams: Mapping[str, Any]
    processes: int
    told: str


def read(found: Sequence[Found], preset: str | None = None, only_average: bool = False) -> Taken:
    """The run in these files, of which at least one has weights.

    Raises:
        CfgError: if the preset is none of theirs, or nothing says which configuration the weights belong to.
        DataError: if the weights do not fit it, or files do not belong together.
    """
    files = _newest(found)
    weights = {kind: files[kind] for kind in (Kind.VDVAE_RAW, Kind.VDVAE_AVERAGED) if kind in files}
    if not weights:
        raise DataError(f"{', '.join(f.path.name for f in found)}: no weights of {PROGRAM} beside; give a *-model*.th.")
    for file in (*weights.values(), *(files[kind] for kind in (Kind.VDVAE_OPTIMIZER,) if kind in files)):
        check_sums(file.path)
    named = {kind: renamed(file.content) for kind, file in weights.items()}
    shapes = {kind: shapes_of(tensors) for kind, tensors in named.items()}
    used = configuration(files, next(iter(shapes.values())), preset)
    for kind, file in weights.items():
        _check(file.path, shapes[kind], used)
    averaged = named.get(Kind.VDVAE_AVERAGED)
    is_average_alone = averaged is not None and (only_average or Kind.VDVAE_RAW not in named)
    raw = None if is_average_alone else named.get(Kind.VDVAE_RAW)
    optimizer = None if raw is None else files.get(Kind.VDVAE_OPTIMIZER)
    moments = None if optimizer is None else _moments(optimizer, weights[Kind.VDVAE_RAW])
    step, told = _step(files, moments)
    return Taken(
        program=PROGRAM,
        cfg=cfg_text(native_sections(used.hparams, used.processes)),
        cfg_name=used.told,
        files=tuple(file.path for file in (*weights.values(), optimizer) if file is not None),
        images=(image_shape_of(used.hparams), LEVELS),
        step=step,
        raw=None if raw is None else raw.items,
        averaged=None if averaged is None else averaged.items,
        moments=moments,
        exact=("optimizer.warmup_from_zero=True",),
        notes=(f"configuration: {used.told}", *told),
    )


def _newest(found: Sequence[Found]) -> dict[Kind, Found]:
    """One file of each kind, all of one checkpoint: that of the latest iteration.

    Raises:
        DataError: if several files of a kind have as good a claim.
    """
    prefixes = {_prefix(file) for file in found if file.kind in (Kind.VDVAE_RAW, Kind.VDVAE_AVERAGED)}
    newest = max(prefixes, key=lambda prefix: _iteration(prefix) or -1, default="")
    rivals = [p for p in prefixes if (_iteration(p) or -1) == (_iteration(newest) or -1)]
    if len(rivals) > 1:
        raise DataError(
            f"weights of several checkpoints lie there ({', '.join(sorted(rivals))}); give the files of one of them."
        )
    files: dict[Kind, Found] = {}
    for file in sorted(found, key=lambda file: _prefix(file) == newest):  # its own files replace what all share
        if _prefix(file) == newest or file.kind in (Kind.VDVAE_LOG, Kind.VDVAE_HPARAMS):
            files[file.kind] = file
    return files


def _prefix(file: Found) -> str:
    """``iter-140`` of ``iter-140-model-ema.th``; a single file may have any name."""
    return re.sub(r"-?(model-ema|model|opt|log)?(\.\w+)?$", "", file.path.name)


def _iteration(prefix: str) -> int | None:
    match = ITERATION.search(prefix)
    return None if match is None else int(match[1])


def configuration(files: Mapping[Kind, Found], shapes: Shapes, preset: str | None) -> Configuration:
    """The preset that was asked for, else the run's own log, else the preset that fits.

    Raises:
        CfgError: if there is no such preset, or none fits.
    """
    if preset is not None:
        if preset not in PRESETS:
            raise CfgError(f"--preset {preset}: {PROGRAM} has {', '.join(PRESETS)}.")
        return Configuration(PRESETS[preset].hparams, PRESETS[preset].gpus, f"preset {preset}")
    if (log := files.get(Kind.VDVAE_LOG)) is not None:
        return _logged(log.content.hparams, log.path)
    if (file := files.get(Kind.VDVAE_HPARAMS)) is not None:
        return _logged(file.content, file.path)
    fitting = [name for name in PRESETS if first_difference(preset_shapes(name), shapes) is None]
    if fitting:
        (name,) = fitting
        return Configuration(PRESETS[name].hparams, PRESETS[name].gpus, f"preset {name}, the one whose shapes fit")
    nearest = nearest_preset(shapes)
    raise CfgError(
        f"these weights fit none of the presets of {PROGRAM}. The nearest is {nearest}; the first difference: "
        f"{first_difference(preset_shapes(nearest), shapes)}. Lay the run's log.jsonl beside them: it has its "
        "hyper-parameters."
    )


def _logged(hparams: Mapping[str, Any], path: Path) -> Configuration:
    """Of a run that was begun with a preset, the preset's number of processes; logs do not say."""
    name = str(hparams.get("hparam_sets") or "").split(",")[-1]
    preset = PRESETS.get(name)
    is_published = preset is not None and preset.hparams["n_batch"] == hparams.get("n_batch")
    told = f"{path.name}" + ("" if is_published else "; batches as of one process, for a log does not say how many")
    return Configuration({**DEFAULTS, **hparams}, preset.gpus if preset and is_published else 1, told)


def _check(path: Path, shapes: Shapes, used: Configuration) -> None:
    expected = model_shapes(used.hparams)
    if first_difference(expected, shapes) is None:
        return
    fitting = [name for name in PRESETS if first_difference(preset_shapes(name), shapes) is None]
    fit = f"preset {fitting[0]} fits: --preset {fitting[0]}" if fitting else f"nearest: preset {nearest_preset(shapes)}"
    check_shapes(expected, shapes, f"{path}: these weights do not belong to {used.told} ({fit})")


def nearest_preset(shapes: Shapes) -> str:
    """The preset with which most weights agree."""

    def agreeing(name: str) -> int:
        ours = preset_shapes(name)
        return sum(shapes.get(key) == shape for key, shape in ours.items()) - len(shapes.keys() ^ ours.keys())

    return max(PRESETS, key=agreeing)


@lru_cache(maxsize=len(PRESETS))
def preset_shapes(name: str) -> Shapes:
    """Shapes of our parameters, in their order."""
    return model_shapes(PRESETS[name].hparams)


def model_shapes(hparams: Mapping[str, Any]) -> Shapes:
    """The same for any hyper-parameters; takes no memory for weights."""
    section, image_shape = section_from_reference(hparams), image_shape_of(hparams)
    try:
        with torch.device("meta"):
            model = section.build(image_shape, LEVELS)
    except (RuntimeError, OverflowError) as error:
        raise CfgError(f"these hyper-parameters make no model of {PROGRAM}: {error}.") from error
    shapes = shapes_of(dict(model.named_parameters()))
    last = {name: shapes.pop(name) for name in ("gain", "bias")}  # as the pass has them
    return {**shapes, **last}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _moments(file: Found, weights: Found) -> Moments:
    """Its state has them by the place of a weight in the file of the raw weights.

    Raises:
        DataError: if they are not those of these weights.
    """
    state, groups = states_of(file.content), file.content["param_groups"]
    names = list(renamed(weights.content))
    if not isinstance(groups, list) or set(state) - set(range(len(names))):
        raise DataError(f"{file.path}: its state is not of these {len(names)} weights.")
    shapes = shapes_of(renamed(weights.content))
    parts: dict[str, Part] = {}
    for key in MOMENTS:
        values: dict[str, Any] = {name: state.get(i, {}).get(key) for i, name in enumerate(names)}
        if wrong := [n for n, value in values.items() if not is_plain(value) or value.shape != shapes[n]]:
            raise DataError(f"{file.path}: {key} of {wrong[0]} is missing, or has another shape than the weight.")
        parts[key] = values.items
    counting = [*(group for group in groups if isinstance(group, dict)), *state.values()]  # apex has one count for all
    return Moments(updates_of(counting), parts)


def _step(files: Mapping[Kind, Found], moments: Moments | None) -> tuple[int, list[str]]:
    """How many iterations the weights have seen, and what to tell of it."""
    named = [number for file in files.values() if (number := _iteration(file.path.name)) is not None]
    if named:
        return named[0], []
    log = files.get(Kind.VDVAE_LOG)
    logged = log.content.last_step if log is not None else 0
    if (step := max(logged, moments.updates if moments else 0)) > 0:
        return step, []
    return 0, ["nothing says how many steps these weights have seen: the run begins at step 0, with its average kept"]
