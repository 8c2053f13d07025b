"""The keys of the original Efficient-VDVAE's cfg files, and what kind of value each of them takes."""

from collections.abc import Mapping
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
"""Those that say nothing to us, and may be missing."""

FLAGS = """
    random_horizontal_flip stable_init initialize_prior_weights_as_zero use_1x1_conv use_residual_distribution
    use_gamma_schedule scaled_gamma use_weight_decay clip_gradient_norm gradient_skip resume_from_ema
    load_ema_weights save_target_in_reconstruction mask_reconstruction
"""
TEXTS = """
    name dataset_source train_data_path val_data_path synthesis_data_path distribution_base output_distribution_base
    variation_schedule type learning_rate_scheme synthesis_mode
"""
COMPOUND = "input_kernel_size output_kernel_size temperature_settings"
THEIRS = {(section, key) for section, keys in KEYS.items() for key in keys.split()}


def checked_values(entries: Entries) -> Mapping[str, Mapping[str, Any]]:
    """section -> key -> value, of every key that there is.

    Raises:
        CfgError: listing every key that is missing or has a value of another kind.
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
    """What the value should have been; empty where it is right."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_list = isinstance(value, (list, tuple))
    if key in FLAGS.split():
        return "" if isinstance(value, bool) else "True or False"
    if key in TEXTS.split():
        return "" if isinstance(value, str) or value is None else "text"
    if key in COMPOUND.split():
        return "" if is_number or is_list else "a number or a list"
    if key.startswith(("up_", "down_")):
        return "" if is_list else "a list with one entry per stage"
    return "" if is_number else "a number"
