"""Checkpoints of the original Efficient-VDVAE, of its PyTorch half and of its JAX half."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import Entries, parse, read_file
from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop.efficient_vdvae import data_from_reference, neutral_names
from lvae_torch.interop.efficient_vdvae_cfg import DATASETS
from lvae_torch.interop.efficient_vdvae_jax import tensors
from lvae_torch.interop.flax_state import FlaxState
from lvae_torch.interop.recognition import Found, Kind
from lvae_torch.interop.taken import Moments, Part, Taken
from lvae_torch.interop.torch_files import MOST_UPDATES, are_tensors, check_sums, is_plain, states_of, updates_of
from lvae_torch.models.efficient_vdvae.section import EfficientVDVAESection

PROGRAM = "Rayhane-mamah/Efficient-VDVAE"
MOMENTS = {"Adamax": ("exp_avg", "exp_inf"), "Adam": ("exp_avg", "exp_avg_sq"), "RAdam": ("exp_avg", "exp_avg_sq")}
"""What each optimizer remembers of a weight, in both halves and here."""


class _Cfg:
    """The original's settings, as far as a checkpoint needs them."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self._entries: Entries = parse(text, name)

    def __getitem__(self, key: tuple[str, str]) -> Any:
        if key not in self._entries:
            raise CfgError(f"{self.name}: no settings of {PROGRAM}; [{key[0]}] {key[1]} is missing.")
        return evaluate(self._entries[key].text)

    def get(self, key: str, default: Any) -> Any:
        """Of [model]."""
        return self["model", key] if ("model", key) in self._entries else default

    @property
    def is_original(self) -> bool:
        return ("model", "up_strides") in self._entries

    @property
    def blocks(self) -> list[int]:
        """Plain blocks of each bottom-up stage."""
        if self.is_original:
            return list(self["model", "up_n_blocks_per_res"])
        return [blocks - 1 for scale in self["model", "bottom_up"] for blocks in scale]

    @property
    def optimizer(self) -> str:
        name = str(self["optimizer", "type"] if self.is_original else "Adamax")
        return {"radam": "RAdam"}.get(name.lower(), name.capitalize())

    @property
    def n_mixtures(self) -> int | None:
        """Components of the mixture; None for binary images."""
        if not self.is_original:
            defaults = EfficientVDVAESection.model_fields
            likelihood, n = (self.get(key, defaults[key].default) for key in ("likelihood", "n_mixtures"))
            return int(n) if likelihood == defaults["likelihood"].default else None
        is_binary = self["data", "dataset_source"] == "binarized_mnist"
        return None if is_binary else int(self["model", "num_output_mixtures"])

    @property
    def images(self) -> tuple[ImageShape, int] | None:
        """Shape (C, H, W) and pixel levels, where these are the original's settings."""
        if not self.is_original:
            return None
        keys = ("dataset_source", "channels", "target_res", "num_bits")
        return data_from_reference({key: self["data", key] for key in keys})

    @property
    def unlisted_dataset(self) -> str | None:
        """A name for the dump of its images; None where a dump of ours is meant."""
        if not self.is_original or ("data", "dataset") in self._entries:
            return None
        source, side = str(self["data", "dataset_source"]), int(self["data", "target_res"])
        return None if (source, side) in DATASETS else re.sub(r"[^A-Za-z0-9_-]+", "_", f"{source}_{side}").lower()

    def exact(self, is_jax: bool) -> tuple[str, ...]:
        """Overrides that make schedules those of the half."""
        if not self.is_original:
            return ()
        overrides = ["optimizer.warmup_from_zero=True"]
        if self["loss", "variation_schedule"] == "Linear":
            start, steps = self["loss", "vae_beta_anneal_start"], self["loss", "vae_beta_anneal_steps"]
            beta = ("linear", int(start), 2 * int(start) + int(steps), float(self["loss", "vae_beta_min"]))
            overrides.append(f"loss.beta={beta!r}")
        if not is_jax:
            overrides.append("optimizer.weight_decay=0.0")
            if self["optimizer", "learning_rate_scheme"] == "cosine":
                overrides += ["optimizer.schedule='cosine_chained'"]
                overrides += [f"optimizer.decay_end={int(self['optimizer', 'decay_steps'])}"]
        return tuple(overrides)


def read(found: Sequence[Found], cfg: Path | None = None, only_average: bool = False) -> Taken:
    """The run in these files: the newest checkpoint, and the settings beside it or in ``cfg``.

    Raises:
        DataError: if one of both is missing, or the checkpoint is damaged.
        CfgError: if the settings are none of theirs.
    """
    checkpoints = [file for file in found if file.kind in (Kind.EFFICIENT_TORCH, Kind.EFFICIENT_JAX)]
    if not checkpoints:
        raise DataError(f"{found[0].path}: settings of {PROGRAM}, but no checkpoint beside; give the folder with both.")
    settings = _settings(found, checkpoints[0].path, cfg)
    newest = max(checkpoints, key=_step)
    if newest.kind is Kind.EFFICIENT_JAX:
        return _of_jax(newest.content, settings, only_average)
    check_sums(newest.path)
    return _of_torch(newest, settings, only_average)


def _settings(found: Sequence[Found], checkpoint: Path, cfg: Path | None) -> _Cfg:
    if cfg is not None:
        sections: dict[str, list[str]] = {}
        for (section, key), entry in read_file(cfg).items():  # which may refine another cfg
            sections.setdefault(section, [f"[{section}]"]).append(f"{key} = {entry.text}")
        return _Cfg("\n".join(line for lines in sections.values() for line in lines) + "\n", str(cfg))
    beside = [file for file in found if file.kind is Kind.EFFICIENT_CFG]
    if len({file.content for file in beside}) != 1:
        told = "several files of settings lie there" if beside else "no settings lie beside it"
        raise DataError(f"{checkpoint}: a checkpoint of {PROGRAM}, but {told}; say which: --cfg hparams-NAME.cfg")
    return _Cfg(beside[0].content, str(beside[0].path))


def _step(file: Found) -> int:
    """Updates, where the checkpoint says so."""
    if file.kind is Kind.EFFICIENT_JAX:
        return file.content.count("step")
    step = file.content["global_step"]
    if type(step) is not int or not -1 <= step <= MOST_UPDATES:
        raise DataError(f"{file.path}: its global_step is no whole number of steps.")
    return step + 1  # theirs is the number of the last step, counted from 0


def _of_jax(state: FlaxState, cfg: _Cfg, only_average: bool) -> Taken:
    def part(prefix: str) -> Part | None:
        return tensors(state, prefix, cfg.blocks, cfg.n_mixtures) if state.below(prefix) else None

    averaged = part("ema_params")
    raw = None if only_average and averaged is not None else part("params")
    moments, notes = None, list[str]()
    kept = {"mu": part("opt_state/0/mu"), "nu": part("opt_state/0/nu")} if raw is not None else {}
    if kept and all(kept.values()):
        keys = MOMENTS.get(cfg.optimizer, MOMENTS["Adamax"])
        parts = {key: theirs for key, theirs in zip(keys, kept.values(), strict=True) if theirs is not None}
        moments = Moments(state.count("opt_state/0/count"), parts)
    exact, decay = cfg.exact(is_jax=True), state.number("ema_decay")
    if decay is not None and cfg.is_original and not np.isclose(decay, float(cfg["train", "ema_decay"])):
        exact = (*exact, f"train.ema_decay={decay!r}")
        notes.append(
            f"the checkpoint's ema_decay is {decay:.7g}, not that of the cfg; a resumed run there, and --exact, "
            "take the checkpoint's"
        )
    return Taken(
        program=f"{PROGRAM}, JAX half",
        cfg=cfg.text,
        cfg_name=cfg.name,
        files=(state.path,),
        images=cfg.images,
        step=state.count("step"),
        raw=raw,
        averaged=averaged,
        moments=moments,
        dataset=cfg.unlisted_dataset,
        exact=exact,
        notes=tuple(notes),
    )


def _of_torch(file: Found, cfg: _Cfg, only_average: bool) -> Taken:
    theirs = file.content
    for key in ("model_state_dict", "ema_model_state_dict"):
        if not are_tensors(theirs[key]):
            raise DataError(f"{file.path}: its {key} holds no weights.")
    averaged = _renamed(theirs["ema_model_state_dict"], cfg.blocks)
    raw = None if only_average else _renamed(theirs["model_state_dict"], cfg.blocks)
    moments = None if only_average else _moments(theirs, cfg)
    return Taken(
        program=f"{PROGRAM}, PyTorch half",
        cfg=cfg.text,
        cfg_name=cfg.name,
        files=(file.path,),
        images=cfg.images,
        step=_step(file),
        raw=None if raw is None else raw.items,
        averaged=averaged.items,
        moments=moments,
        dataset=cfg.unlisted_dataset,
        exact=cfg.exact(is_jax=False),
    )


def _renamed(values: Mapping[str, Tensor], blocks: Sequence[int]) -> dict[str, Tensor]:
    names = neutral_names((re.sub(r"^module\.", "", name) for name in values), blocks)
    return {names[re.sub(r"^module\.", "", name)]: value for name, value in values.items()}


def _moments(theirs: Mapping[str, Any], cfg: _Cfg) -> Moments | None:
    """Where all are kept as PyTorch keeps them, one of each a parameter; otherwise none."""
    weights, state = theirs["model_state_dict"], states_of(theirs.get("optimizer_state_dict"))
    pairs = {name: state.get(i, {}) for i, name in enumerate(weights)}
    keys = next((keys for keys in MOMENTS.values() if _have(pairs, weights, keys)), None)
    if keys is None:
        return None

    def part(key: str) -> Iterable[tuple[str, Tensor]]:
        return _renamed({name: pair[key] for name, pair in pairs.items()}, cfg.blocks).items()

    return Moments(updates_of(pairs.values()), {key: (lambda key=key: part(key)) for key in keys})  # type: ignore[misc]


def _have(pairs: Mapping[str, Any], weights: Mapping[str, Tensor], keys: Sequence[str]) -> bool:
    found = [(pairs[name].get(key), w.shape) for name, w in weights.items() for key in keys]
    return all(is_plain(value) and value.shape == shape for value, shape in found)
