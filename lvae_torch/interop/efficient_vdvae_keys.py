"""The keys of the original Efficient-VDVAE's cfg files, and the kind of value that each one takes."""

from collections.abc import Callable
from typing import Any

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import Entries
from lvae_torch.errors import CfgError

Key = tuple[str, str]

KEYS = {
    "run": "name seed num_gpus num_cpus max_allowed_checkpoints",
    "data": "dataset_source train_data_path val_data_path synthesis_data_path target_res channels num_bits "
    "random_horizontal_flip",
    "model": "stable_init initialize_prior_weights_as_zero use_1x1_conv distribution_base output_distribution_base "
    "gradient_smoothing_beta output_gradient_smoothing_beta input_conv_filters input_kernel_size "
    "use_residual_distribution output_kernel_size num_output_mixtures up_strides down_strides up_filters "
    "up_skip_filters up_kernel_size down_filters down_kernel_size up_n_blocks up_n_layers down_n_blocks "
    "down_n_layers up_n_blocks_per_res down_n_blocks_per_res up_mid_filters_ratio down_mid_filters_ratio "
    "down_latent_variates",
    "loss": "min_mol_logscale variation_schedule vae_beta_anneal_start vae_beta_anneal_steps vae_beta_min "
    "vae_beta_activation_steps vae_beta_growth_rate use_gamma_schedule gamma_max_steps scaled_gamma "
    "use_weight_decay l2_weight",
    "metrics": "latent_active_threshold",
    "optimizer": "type learning_rate_scheme learning_rate warmup_steps decay_steps decay_start min_learning_rate "
    "decay_rate beta1 beta2 epsilon clip_gradient_norm gradient_clip_norm_value gradient_skip "
    "gradient_skip_threshold",
    "init": "batch_size",
    "train": "total_train_steps batch_size ema_decay resume_from_ema logging_interval_in_steps "
    "checkpoint_and_eval_interval_in_steps",
    "val": "n_samples_for_validation batch_size",
    "synthesis": "synthesis_mode load_ema_weights variate_masks_quantile save_target_in_reconstruction "
    "mask_reconstruction div_stats_subset_ratio n_generation_batches temperature_settings output_temperature "
    "batch_size",
}  # fmt: skip
"""Every key of the original."""

UNREAD = {("run", "num_gpus"), ("run", "num_cpus"), ("init", "batch_size"), ("metrics", "latent_active_threshold")} | {
    ("data", f"{which}_data_path") for which in ("train", "val", "synthesis")
}
"""Keys that we do not read, so they may be missing."""

THEIRS = {(section, key) for section, keys in KEYS.items() for key in keys.split()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return _is_number(value) and value == int(value) and value >= least


def _are(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_one, value))


def _is_kernel(value: Any) -> bool:
    return _is_whole(value, 1) or (_are(value, lambda side: _is_whole(side, 1)) and len(value) == 2)


def _is_temperature(value: Any) -> bool:
    """A number, a straight line between two, or one number per stage."""
    if isinstance(value, (list, tuple)) and value[:1] and value[0] == "linear":
        return len(value) == 3 and _are(value[1:], _is_number)
    return _is_number(value) or _are(value, _is_number)


KINDS: list[tuple[str, str, Callable[[Any], bool]]] = [
    (
        "True or False",
        "random_horizontal_flip stable_init initialize_prior_weights_as_zero use_1x1_conv use_residual_distribution "
        "use_gamma_schedule scaled_gamma use_weight_decay clip_gradient_norm gradient_skip resume_from_ema "
        "load_ema_weights save_target_in_reconstruction mask_reconstruction",
        lambda value: isinstance(value, bool),
    ),
    (
        "text",
        "name dataset_source train_data_path val_data_path synthesis_data_path",
        lambda value: isinstance(value, str),
    ),
    ("'std' or 'logstd'", "distribution_base output_distribution_base", lambda value: value in ("std", "logstd")),
    ("'None', 'Linear' or 'Logistic'", "variation_schedule", lambda v: v in (None, "None", "Linear", "Logistic")),
    ("'Adamax', 'Adam' or 'RAdam'", "type", lambda value: value in ("Adamax", "Adam", "RAdam", "Radam")),
    (
        "'cosine', 'constant', 'noam' or 'exponential'",
        "learning_rate_scheme",
        lambda value: value in ("cosine", "constant", "noam", "exponential"),
    ),
    (
        "'reconstruction', 'generation', 'div_stats' or 'encoding'",
        "synthesis_mode",
        lambda value: value in ("reconstruction", "generation", "div_stats", "encoding"),
    ),
    (
        "a whole number above 0",
        "max_allowed_checkpoints target_res channels input_conv_filters num_output_mixtures vae_beta_anneal_steps "
        "decay_steps total_train_steps batch_size logging_interval_in_steps checkpoint_and_eval_interval_in_steps "
        "n_samples_for_validation n_generation_batches",
        lambda value: _is_whole(value, 1),
    ),
    (
        "a whole number, 0 or more",
        "vae_beta_anneal_start vae_beta_activation_steps gamma_max_steps warmup_steps decay_start",
        lambda value: _is_whole(value, 0),
    ),
    ("a whole number from 1 to 8", "num_bits", lambda value: _is_whole(value, 1) and value <= 8),
    (
        "a number above 0",
        "gradient_smoothing_beta output_gradient_smoothing_beta learning_rate output_temperature "
        "gradient_clip_norm_value gradient_skip_threshold",
        lambda value: _is_number(value) and value > 0,
    ),
    (
        "a number above 0, at most 1",
        "div_stats_subset_ratio variate_masks_quantile",
        lambda value: _is_number(value) and 0 < value <= 1,
    ),
    (
        "a list of whole numbers above 0, one per stage",
        "up_strides down_strides up_filters up_skip_filters up_kernel_size down_filters down_kernel_size up_n_blocks "
        "down_n_blocks down_latent_variates",
        lambda value: _are(value, lambda one: _is_whole(one, 1)),
    ),
    (
        "a list of whole numbers, 0 or more, one per stage",
        "up_n_layers down_n_layers up_n_blocks_per_res down_n_blocks_per_res",
        lambda value: _are(value, lambda one: _is_whole(one, 0)),
    ),
    (
        "a list of numbers above 0, one per stage",
        "up_mid_filters_ratio down_mid_filters_ratio",
        lambda value: _are(value, lambda one: _is_number(one) and one > 0),
    ),
    ("a whole number or (rows, columns)", "input_kernel_size output_kernel_size", _is_kernel),
    (
        "a list of temperatures, each a number, one number per stage, or ('linear', first, last)",
        "temperature_settings",
        lambda value: _is_temperature(value) or (isinstance(value, (list, tuple)) and all(map(_is_temperature, value))),
    ),
]
"""Description of a kind of value, the keys of that kind, and its test."""


def checked_values(entries: Entries) -> dict[str, dict[str, Any]]:
    """section -> key -> value, for every key that is set.

    Raises:
        CfgError: listing every key that is missing or has a wrong kind of value.
    """
    problems = [f"[{section}] {key} is missing." for section, key in sorted(THEIRS - UNREAD - entries.keys())]
    values: dict[str, dict[str, Any]] = {section: {} for section in KEYS}
    for (section, key), entry in entries.items():
        if (section, key) not in THEIRS:
            continue
        try:
            value = entry.text if key == "name" else evaluate(entry.text)
        except CfgError as error:
            problems.append(f"[{section}] {key} ({entry.where}) {error}")
            continue
        values[section][key] = value
        if needed := _misfit(key, value):
            problems.append(f"[{section}] {key} = {entry.text} ({entry.where}): needs {needed}.")
    if problems:
        raise CfgError("\n".join(problems))
    return values


def _misfit(key: str, value: Any) -> str:
    """Description of the kind that the value should have; empty if it is right."""
    for needed, keys, is_right in KINDS:
        if key in keys.split():
            return "" if is_right(value) else needed
    return "" if _is_number(value) else "a number"
