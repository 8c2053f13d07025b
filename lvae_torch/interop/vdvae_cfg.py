"""The hyper-parameters of openai/vdvae as settings of ours."""

from collections.abc import Mapping
from typing import Any

from lvae_torch.errors import CfgError
from lvae_torch.interop.vdvae import dataset_of, section_from_reference

Values = Mapping[str, Any]
Sections = dict[str, dict[str, Any]]

MEANT = (
    *("ema_rate", "grad_clip", "skip_threshold", "lr", "wd", "warmup_iters", "adam_beta1", "adam_beta2"),
    *("num_epochs", "n_batch", "iters_per_save", "epochs_per_eval", "seed"),
)
"""The keys that settings follow from, beside those of the model."""


def native_sections(hparams: Values, processes: int = 1, is_exact: bool = False) -> Sections:
    """section -> key -> value, of what differs from our defaults; the run still needs a name.

    Args:
        processes: how many of ``n_batch`` images each trained it; its hyper-parameters do not say.
        is_exact: the learning rate of each step as theirs is, which begins at 0.
    Raises:
        CfgError: naming what is missing, or asks for what we have not.
    """
    if missing := [key for key in MEANT if key not in hparams]:
        raise CfgError(f"the hyper-parameters of openai/vdvae have no {', '.join(missing)}.")
    try:
        return _sections(hparams, processes, is_exact)
    except (TypeError, ValueError, OverflowError) as error:
        raise CfgError(f"a hyper-parameter of openai/vdvae has a value of another kind ({error}).") from error


def _sections(hparams: Values, processes: int, is_exact: bool) -> Sections:
    dataset = dataset_of(hparams)
    sections: Sections = {
        "run": {"seed": int(hparams["seed"])},
        "data": {"dataset": dataset.dump, "val_split": "valid"},
        "model": section_from_reference(hparams).model_dump(exclude_defaults=True) | {"family": "vdvae"},
        "loss": {"per_dimension": True},
        "optimizer": _optimizer(hparams),
        "train": {
            "steps": f"{int(hparams['num_epochs'])} epochs",
            "batch_size": int(hparams["n_batch"]) * processes,
            "ema_decay": float(hparams["ema_rate"]),
            "checkpoint_every": int(hparams["iters_per_save"]),
        },
        "val": {"every": f"{int(hparams['epochs_per_eval'])} epochs", "as_published": True},
    }
    if is_exact:
        sections["optimizer"]["warmup_from_zero"] = True
    if dataset.test_split != "valid":
        sections["synthesis"] = {"split": dataset.test_split}
    return sections


def _optimizer(hparams: Values) -> dict[str, Any]:
    section = {
        "name": "adamw",
        "learning_rate": float(hparams["lr"]),
        "betas": (float(hparams["adam_beta1"]), float(hparams["adam_beta2"])),
        "weight_decay": float(hparams["wd"]),
        "warmup_steps": int(hparams["warmup_iters"]),
        "clip_norm": float(hparams["grad_clip"]),
    }
    skip = float(hparams["skip_threshold"])
    return section if skip == -1 else section | {"skip_norm": skip}
