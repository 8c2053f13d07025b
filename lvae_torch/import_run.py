"""``python -m lvae_torch.import_run``: a run of another program, settings and weights, as a run of ours."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lvae_torch.cli import add_overrides, main, new_parser

PARSER = new_parser("import")
PARSER.add_argument("program", choices=["efficient_vdvae"], help="whose run it is")
PARSER.add_argument("--cfg", required=True, help="its cfg (or one of ours for the same model)")
PARSER.add_argument("--checkpoint", required=True, help="its checkpoint; no code in it is run")
PARSER.add_argument("--name", required=True, help="name of the new run")
add_overrides(PARSER)
if __name__ == "__main__":
    PARSER.parse_args()  # --help and wrong usage are answered before PyTorch is imported, which takes seconds

import torch
from torch import Tensor, nn

from lvae_torch.data.run_data import open_dump
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.hparams import Settings, keep_settings, load, to_cfg
from lvae_torch.info import shape_of_data
from lvae_torch.interop.efficient_vdvae import neutral_names
from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.contract import Model
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE
from lvae_torch.runs.checkpoint import UNKNOWN, About, Checkpoint, State, TrainedOn
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.state_file import read_safely
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import new_optimizer

Weights = Mapping[str, Tensor]
MOMENTS = {"adamax": ("exp_avg", "exp_inf"), "adam": ("exp_avg", "exp_avg_sq"), "radam": ("exp_avg", "exp_avg_sq")}
"""What each optimizer remembers of a weight, there and here."""


def command(argv: Sequence[str]) -> None:
    """Write the run, and say how to use it."""
    arguments = PARSER.parse_args(argv)
    settings = load(Path(arguments.cfg), [f"run.name={arguments.name}", *arguments.overrides])
    if settings.model.family != arguments.program:
        raise CfgError(f"{arguments.cfg}: its model is of family {settings.model.family}, not {arguments.program}.")
    step = import_run(settings, Path(arguments.checkpoint))
    place = RunFolder.of(settings.run).path
    print(f"{place}: the run at step {step:,}. Use it: python -m lvae_torch.synthesize {place}")


def import_run(settings: Settings, checkpoint: Path) -> int:
    """Write ``runs/<run.name>/`` from a checkpoint of the original Efficient-VDVAE.

    Returns:
        The number of steps that the run has taken.
    Raises:
        DataError: if the checkpoint is damaged or of another model.
        CfgError: if there is a run of that name already.
    """
    theirs = read_safely(checkpoint)
    if missing := {"model_state_dict", "ema_model_state_dict", "global_step"} - theirs.keys():
        raise DataError(f"{checkpoint}: no checkpoint of Efficient-VDVAE; it has no {', '.join(sorted(missing))}.")
    if not isinstance(theirs["global_step"], int):
        raise DataError(f"{checkpoint}: its global_step is {theirs['global_step']!r}; it needs a whole number.")
    step = theirs["global_step"] + 1  # theirs is the number of the last step, counted from 0
    folder, state = RunFolder.of(settings.run), _checkpoint(settings, theirs, step)
    with folder.lock():
        if folder.has_checkpoints:
            raise CfgError(f"{folder.path}: there is a run of that name; choose another, or ./reset.sh {folder.name}.")
        keep_settings(folder, settings)
        store = CheckpointStore(folder.checkpoints, settings.train.keep_checkpoints)
        store.save(step, state.as_dict(), is_best=False)
        store.wait()
        folder.write_status("preempted", step, f"taken over from {checkpoint.name}")
    return step


def _checkpoint(settings: Settings, theirs: Mapping[str, Any], step: int) -> Checkpoint:
    """Their state as a checkpoint of ours."""
    image_shape, n_levels = shape_of_data(settings)
    raw, averaged = (_filled(settings, theirs[key]) for key in ("model_state_dict", "ema_model_state_dict"))
    flat, section = FlatParameters(raw), settings.optimizer
    optimizer = new_optimizer(section.name, flat.vector, section.betas, section.eps)
    if not _fill_moments(MOMENTS[section.name], optimizer.state[flat.vector], flat, raw, theirs, step):
        say("no moments of the optimizer that we can read: training would go on with new ones.")
    try:
        content_hash = open_dump(settings.data).content_hash
    except DataError:  # not made yet: the run can be used, and goes on with whatever dump has that name then
        content_hash = UNKNOWN
    trained_on = TrainedOn(settings.data.dataset, content_hash, image_shape, n_levels)
    return Checkpoint(
        model=raw.state_dict(),
        ema=averaged.state_dict() if settings.train.ema_decay else None,
        optimizer=optimizer.state_dict(),
        meter=Meter(len(raw.latent_shapes()), torch.device("cpu")).state_dict(),
        state=State(step=step),
        about=About(to_cfg(settings), trained_on),
    )


def _filled(settings: Settings, weights: Weights) -> Model:
    """Our model with their weights."""
    model = settings.model.build(*shape_of_data(settings))
    if settings.train.channels_last:
        model.to(memory_format=torch.channels_last)
    copy_weights(dict(model.named_parameters()), _renamed(weights, model))
    return model


def _renamed(values: Mapping[str, Any], model: Model) -> dict[str, Any]:
    assert isinstance(model, EfficientVDVAE)
    names = neutral_names(values, [len(list(stage.children())) - 1 for stage in model.up])
    return {names[name]: value for name, value in values.items()}


def _fill_moments(
    keys: tuple[str, str],
    state: dict[str, Tensor],
    flat: FlatParameters,
    model: Model,
    theirs: Mapping[str, Any],
    step: int,
) -> bool:
    """Take over the moments where all are kept as PyTorch keeps them, one pair a parameter; otherwise none."""
    weights, known = theirs["model_state_dict"], (theirs.get("optimizer_state_dict") or {}).get("state") or {}
    kept = {name: known.get(i) or {} for i, name in enumerate(weights)}
    if any(
        getattr(kept[name].get(key), "shape", None) != weight.shape for name, weight in weights.items() for key in keys
    ):
        return False
    for key in keys:
        moments = {name: pair[key] for name, pair in kept.items()}
        copy_weights(dict(_pieces(flat, model, state[key])), _renamed(moments, model))
    state["step"].fill_(max(float(pair.get("step", step)) for pair in kept.values()))
    return True


def _pieces(flat: FlatParameters, model: nn.Module, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
    names = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    yield from zip(names, flat.pieces(vector), strict=True)


if __name__ == "__main__":
    main(command)
