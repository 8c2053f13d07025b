"""What was read of another program's run as a checkpoint of ours, one tensor at a time."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lvae_torch.errors import DataError, say
from lvae_torch.hparams import Settings, to_cfg
from lvae_torch.interop.shapes import Shapes, check_shapes
from lvae_torch.interop.taken import Moments, Part, Taken
from lvae_torch.models.contract import Model
from lvae_torch.runs.checkpoint import About, Checkpoint, State, TrainedOn, Weights
from lvae_torch.training.fine_tuning import freeze
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.wrapping import place

MOMENTS = {"adamax": ("exp_avg", "exp_inf")}
OTHER_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What each optimizer remembers of a weight."""


def as_checkpoint(settings: Settings, trained_on: TrainedOn, taken: Taken) -> Checkpoint:
    """The checkpoint that a run with these settings goes on from. Nothing is held twice.

    Raises:
        DataError: if weights or moments are damaged, or of another model.
        CfgError: if ``[train] freeze`` matches nothing, or leaves nothing to train.
    """
    model = _meta_model(settings, trained_on)
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    averaged = None if taken.averaged is None else _weights(expected, taken.averaged, "averaged weights")
    raw = averaged if taken.raw is None else _weights(expected, taken.raw, "raw weights")
    assert raw is not None, "a run without weights"
    counters = {name: torch.zeros(()).long() for name in model.state_dict() if name not in expected}
    has_average = averaged is not None and settings.train.ema_decay > 0
    return Checkpoint(
        model=raw | counters,
        ema=averaged | counters if has_average and averaged is not None else None,
        optimizer=None if taken.raw is None else _optimizer(settings, model, taken.moments),
        meter=Meter(len(model.latent_shapes()), torch.device("cpu")).state_dict(),
        state=State(step=taken.step),
        about=About(to_cfg(settings), trained_on),
        ema_is_aged=True,
    )


def _meta_model(settings: Settings, on: TrainedOn) -> Model:
    """The model without memory for its weights, in the memory format of training, and frozen as in training."""
    with torch.device("meta"):
        model = settings.model.build(on.image_shape, on.n_levels)
    place(settings.train, model, torch.device("meta"))
    freeze(model, settings.train.freeze)
    return model


def _weights(expected: Mapping[str, Tensor], part: Part, what: str) -> Weights:
    """The tensors of a part, held against the model."""
    found, shapes = dict[str, Tensor](), dict[str, tuple[int, ...]]()
    for name, tensor in part():
        shapes[name] = tuple(tensor.shape)
        if name in expected and tensor.shape == expected[name].shape:  # nothing is made of what does not fit
            found[name] = _plain(tensor, name, what)
    check_shapes(_shapes(expected.items()), shapes, f"the {what} do not fit the settings")
    return found


def _plain(tensor: Tensor, name: str, what: str) -> Tensor:
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise DataError(f"{name} of the {what}: not all of it are finite numbers; the file is damaged. Fetch it again.")
    return tensor.detach().float()


def _shapes(tensors: Iterable[tuple[str, Tensor]]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _optimizer(settings: Settings, model: Model, moments: Moments | None) -> dict[str, object] | None:
    """As torch's optimizer has it over one flat vector; None, with a word to the user, where moments are missing.

    Those of frozen weights are left out, for training has none.
    """
    needed = MOMENTS.get(settings.optimizer.name, OTHER_MOMENTS)
    if moments is None or set(moments.parts) != set(needed):
        say("note: no moments of the optimizer that we can take over: training would go on with new ones.")
        return None
    shapes = _shapes(model.named_parameters())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    flat = FlatParameters(model, with_gradient=False)
    state = {"step": torch.tensor(float(moments.updates))}
    for key, part in moments.parts.items():
        state[key] = torch.zeros(flat.vector.shape)
        pieces = dict(zip(trained, flat.pieces(state[key]), strict=True))
        seen = set()
        for name, tensor in part():
            if name not in shapes:
                raise DataError(f"{key} of {name}: this model has no such weight.")
            check_shapes({name: shapes[name]}, {name: tuple(tensor.shape)}, f"{key} does not fit")
            if name in pieces:
                pieces[name].copy_(_plain(tensor, name, key))
            seen.add(name)
        if missing := pieces.keys() - seen:
            raise DataError(f"{key} of {min(missing)} is missing; the optimizer's state is not of these weights.")
    return {"state": {0: state}, "param_groups": [{"lr": settings.optimizer.learning_rate, "params": [0]}]}
