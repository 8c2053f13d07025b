"""Reads cfg files of the original Efficient-VDVAE: every key is translated, or named in a note.

They are INI files like ours, with other keys (``[model] up_strides`` and so on). Entries with our keys, such as
``--set train.precision=bfloat16``, pass unchanged and take precedence.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lvae_torch.cfg.reader import Entries, Entry
from lvae_torch.errors import CfgError
from lvae_torch.interop.efficient_vdvae import section_from_reference
from lvae_torch.interop.efficient_vdvae_keys import THEIRS, Key, checked_values

Native = Iterator[tuple[Key, str, Any]]
"""Yields (the original's key, our section.key, value)."""
Sections = Mapping[str, dict[str, Any]]

DATASETS: dict[tuple[str, int], tuple[str, str, str]] = {
    ("binarized_mnist", 32): ("mnist", "test", "test"),
    ("cifar-10", 32): ("cifar10_efficient_vdvae", "valid", "test"),
    ("imagenet", 32): ("imagenet32", "test", "test"),
    ("imagenet", 64): ("imagenet64", "test", "test"),
    ("celebA", 64): ("celeba64_efficient_vdvae", "valid", "test"),
    ("celebAHQ", 256): ("celebahq256", "valid", "valid"),
    ("celebAHQ", 1024): ("celebahq1024", "valid", "valid"),
    ("ffhq", 256): ("ffhq256", "valid", "valid"),
    ("ffhq", 1024): ("ffhq1024", "valid", "valid"),
}
"""(dataset_source, target_res) -> our dump, its split for validation, and its split for synthesis."""

MISSPELT: Key = ("synthesis", "variates_masks_quantile")  # spelt so in the original's PyTorch code


def is_original(entries: Entries) -> bool:
    """Whether these are settings of the original program."""
    return ("model", "up_strides") in entries and ("model", "family") not in entries


def native_entries(entries: Entries) -> tuple[Entries, list[str]]:
    """Translate the original's entries to ours, with notes on the differences.

    Raises:
        CfgError: listing every key that is missing, unreadable or not supported.
    """
    entries, notes, problems = dict(entries), list[str](), list[str]()
    if MISSPELT in entries:
        entries["synthesis", "variate_masks_quantile"] = entries.pop(MISSPELT)
        notes.append("[synthesis] variates_masks_quantile: read as variate_masks_quantile.")
    sections = checked_values(entries)
    sections["data"]["has_own_dump"] = ("data", "dataset") in entries
    translated: Entries = {}
    for translate in (_run, _data, _model, _loss, _optimizer, _train, _synthesis):
        try:
            for key, ours, value in translate(sections, notes):
                entry, (section, _, name) = entries[key], ours.partition(".")
                text = entry.text if ours == "run.name" else repr(value)
                translated[section, name] = Entry(text, f"{entry.where}, there {key[1]}")
        except CfgError as error:
            problems.append(str(error))
    if problems:
        raise CfgError("\n".join(dict.fromkeys(problems)))
    return translated | {key: entry for key, entry in entries.items() if key not in THEIRS}, notes


def _run(sections: Sections, notes: list[str]) -> Native:
    run = sections["run"]
    yield ("run", "name"), "run.name", run["name"]
    yield ("run", "seed"), "run.seed", run["seed"]
    yield ("run", "max_allowed_checkpoints"), "train.keep_checkpoints", run["max_allowed_checkpoints"]
    notes.append("[run] num_gpus, num_cpus: not read; torchrun's --nproc_per_node says how many processes train.")


def _data(sections: Sections, notes: list[str]) -> Native:
    data = sections["data"]
    is_mnist = data["dataset_source"] == "binarized_mnist"
    if is_mnist and data["channels"] != 1:
        raise CfgError(f"[data] channels = {data['channels']}: images of MNIST have 1.")
    if not data.get("has_own_dump"):
        dataset, val_split, _ = _dump(data)
        yield ("data", "dataset_source"), "data.dataset", dataset
        yield ("data", "dataset_source"), "data.val_split", val_split
        notes.append(f"[data] *_data_path: not read; lvae data {dataset} makes the dump.")
    n_samples = sections["val"]["n_samples_for_validation"]
    if is_mnist:
        yield ("data", "dataset_source"), "data.binarize", "dynamic"
        notes.append(
            f"[data] binarized_mnist: {n_samples} images of the whole test set, spread over it, not of a half."
        )
    else:
        yield ("data", "num_bits"), "data.n_bits", data["num_bits"]
        yield ("data", "random_horizontal_flip"), "data.flip", data["random_horizontal_flip"]
    yield ("val", "n_samples_for_validation"), "data.limit_val", n_samples


def _dump(data: Mapping[str, Any]) -> tuple[str, str, str]:
    source, side = data["dataset_source"], data["target_res"]
    if (source, side) not in DATASETS:
        raise CfgError(
            f"[data] dataset_source = {source!r} at target_res = {side}: no dump stands for that, only for "
            f"{', '.join(f'{name} at {res}' for name, res in DATASETS)}. Make one (lvae data images "
            "--help) and name it: --set data.dataset=NAME, and data.val_split if that is not test."
        )
    return DATASETS[source, side]


def _model(sections: Sections, notes: list[str]) -> Native:
    section = section_from_reference(sections["model"], sections["data"], sections["loss"])
    source = ("model", "up_strides")
    yield source, "model.family", section.family
    for key in section.model_fields_set - {"family"}:
        yield source, f"model.{key}", getattr(section, key)
    if sections["data"]["num_bits"] < 8:
        notes.append(
            "[data] num_bits below 8: the likelihood's bins tile the axis, the original's overlap and score about 0.04 "
            "bits/dim too good. [model] bins = overlapping gives its numbers."
        )


def _loss(sections: Sections, notes: list[str]) -> Native:
    loss = sections["loss"]
    yield ("loss", "variation_schedule"), "loss.beta", _beta(loss)
    yield ("loss", "variation_schedule"), "loss.per_dimension", True
    if loss["use_gamma_schedule"]:
        yield ("loss", "scaled_gamma"), "loss.balance", "kl_per_unit" if loss["scaled_gamma"] else "kl"
        yield ("loss", "gamma_max_steps"), "loss.balance_steps", loss["gamma_max_steps"]
    if loss["use_weight_decay"]:
        yield ("loss", "l2_weight"), "optimizer.weight_decay", loss["l2_weight"]
        yield ("loss", "use_weight_decay"), "optimizer.weight_decay_on", "blocks"
        notes.append("[loss] use_weight_decay: decays, as in the original's JAX version; its PyTorch one ignores it.")


def _beta(loss: Mapping[str, Any]) -> Any:
    start, steps = int(loss["vae_beta_anneal_start"]), int(loss["vae_beta_anneal_steps"])
    if loss["variation_schedule"] == "Linear":
        return ("linear", start, start + steps, loss["vae_beta_min"])
    if loss["variation_schedule"] == "Logistic":
        return ("logistic", loss["vae_beta_activation_steps"], loss["vae_beta_growth_rate"])
    return 1.0


def _optimizer(sections: Sections, notes: list[str]) -> Native:
    theirs = sections["optimizer"]
    scheme = theirs["learning_rate_scheme"]

    def same(key: str, ours: str, change: Callable[[Any], Any] = lambda value: value) -> tuple[Key, str, Any]:
        return ("optimizer", key), f"optimizer.{ours}", change(theirs[key])

    yield same("type", "name", str.lower)
    yield same("learning_rate_scheme", "schedule")
    yield same("learning_rate", "learning_rate")
    yield same("warmup_steps", "warmup_steps")
    yield same("epsilon", "eps")
    yield same("beta1", "betas", lambda beta1: (beta1, theirs["beta2"]))
    if scheme == "cosine":
        end = theirs["decay_start"] + theirs["decay_steps"]
        yield same("decay_start", "decay_start")
        yield same("decay_steps", "decay_end", lambda _: end if end != sections["train"]["total_train_steps"] else 0)
        yield same("min_learning_rate", "final_learning_rate")
    if scheme == "exponential":
        for key in ("decay_start", "decay_steps", "decay_rate"):
            yield same(key, key)
        yield same("min_learning_rate", "final_learning_rate")
    if theirs["clip_gradient_norm"]:
        yield same("gradient_clip_norm_value", "clip_norm")
    if theirs["gradient_skip"]:
        yield same("gradient_skip_threshold", "skip_norm")


def _train(sections: Sections, notes: list[str]) -> Native:
    train = sections["train"]
    if train["resume_from_ema"]:
        raise CfgError(
            "[train] resume_from_ema = True: a run of ours goes on from its own weights. To begin with the averaged "
            "weights of another run, name it: [train] initial_run = NAME."
        )
    interval = ("train", "checkpoint_and_eval_interval_in_steps")
    yield ("train", "total_train_steps"), "train.steps", train["total_train_steps"]
    yield ("train", "batch_size"), "train.batch_size", train["batch_size"]
    yield ("train", "ema_decay"), "train.ema_decay", train["ema_decay"]
    yield interval, "train.checkpoint_every", train[interval[1]]
    yield interval, "val.every", train[interval[1]]
    yield ("val", "batch_size"), "val.batch_size", sections["val"]["batch_size"]
    if (every := train["logging_interval_in_steps"]) > 1:
        yield ("train", "logging_interval_in_steps"), "train.log_every", every
    else:
        notes.append("[train] logging_interval_in_steps = 1: a line every 100 steps; reading each would stall a GPU.")
    notes.append("[init] batch_size, [metrics] latent_active_threshold: not needed.")


def _synthesis(sections: Sections, notes: list[str]) -> Native:
    theirs = sections["synthesis"]
    mode = theirs["synthesis_mode"]

    def same(key: str, ours: str, change: Callable[[Any], Any] = lambda value: value) -> tuple[Key, str, Any]:
        return ("synthesis", key), f"synthesis.{ours}", change(theirs[key])

    yield same("synthesis_mode", "mode")
    yield same("load_ema_weights", "use_ema")
    yield same("batch_size", "batch_size")
    source = ("synthesis", "synthesis_mode")
    if mode in ("reconstruction", "encoding") and not sections["data"]["has_own_dump"]:
        yield source, "synthesis.split", _dump(sections["data"])[2]
    if mode in ("reconstruction", "generation"):
        yield source, "synthesis.draw", "sample"
        yield source, "synthesis.save_singles", True
    if mode == "encoding" or theirs["mask_reconstruction"]:
        yield same("variate_masks_quantile", "keep_fraction", lambda share: None if share == 1 else share)
    if mode == "div_stats":
        yield same("div_stats_subset_ratio", "limit", float)
    yield same("save_target_in_reconstruction", "save_targets")
    n_images = theirs["n_generation_batches"] * theirs["batch_size"]
    yield ("synthesis", "n_generation_batches"), "synthesis.n_images", n_images
    settings = theirs["temperature_settings"]
    several = settings if isinstance(settings, list) else [settings]
    blocks = sections["model"]["down_n_blocks_per_res"]
    temperatures = [_temperature(setting, blocks) for setting in several]
    yield ("synthesis", "temperature_settings"), "synthesis.temperatures", temperatures
    if mode == "generation" and any(_is_line(setting) for setting in several):
        notes.append("[synthesis] 'linear' temperatures: a straight line over layers, which reaches its end.")
    if sections["data"]["dataset_source"] != "binarized_mnist" and mode in ("reconstruction", "generation"):
        yield same("output_temperature", "output_temperature")


def _temperature(setting: Any, blocks_per_stage: list[int]) -> Any:
    """Expand temperatures per stage to layers; a line from a to b reaches b, unlike in the original."""
    if not isinstance(setting, (list, tuple)) or _is_line(setting):
        return setting
    if len(setting) != len(blocks_per_stage):
        raise CfgError(
            f"[synthesis] temperature_settings: {setting} has {len(setting)} entries, but there are "
            f"{len(blocks_per_stage)} stages on the way down."
        )
    return [t for t, more in zip(setting, blocks_per_stage, strict=True) for _ in range(more + 1)]


def _is_line(setting: Any) -> bool:
    return isinstance(setting, (list, tuple)) and setting[:1] in (("linear",), ["linear"])
