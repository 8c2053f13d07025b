"""Cfg files in the form of the original Efficient-VDVAE, with its training table, for tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from efficient_vdvae_cases import PUBLISHED


@dataclass(frozen=True)
class Training:
    """A row of the table of its examples; thousands of steps where the table has them."""

    batch: int
    val_batch: int
    val_samples: int
    synthesis_batch: int
    steps: int = 800
    final_rate: float = 2e-4
    decay: tuple[int, int] = (50, 750)
    """Start, length."""
    anneal: int = 5000
    gamma: int = 10_000
    clip: float | None = None
    skip: float = 800.0
    decays_weights: bool = False


FACES_1024 = Training(8, 8, 1000, 1, 900, 1e-4, (50, 850), clip=300.0, skip=1200.0)
FFHQ_256 = Training(8, 32, 7000, 16, 900, 1e-4, (50, 850), skip=500.0)
CELEBAHQ_256 = Training(8, 32, 3000, 16, 800, 1e-4, clip=300.0)
FFHQ_5_BITS = Training(16, 64, 7000, 16, 900, 1e-4, clip=20.0, skip=1000.0)
TRAINING = {
    "binarized_mnist_baseline": Training(
        32, 128, 5000, 256, 200, 1e-4, (5, 195), anneal=500, gamma=1000, decays_weights=True
    ),
    "celebA64_baseline": Training(16, 64, 19867, 128, 800, 1e-4),
    "celebA64_compact": Training(16, 64, 19867, 16, 800, 1e-4),
    "celebAHQ1024_baseline": FACES_1024,
    "celebAHQ256_5bits_baseline": Training(16, 64, 3000, 16, 500, 1e-4, (50, 400), clip=15.0, skip=1000.0),
    "celebAHQ256_8bits_baseline": CELEBAHQ_256,
    "celebAHQ256_8bits_compact": CELEBAHQ_256,
    "cifar10_C1": Training(32, 64, 5000, 32, decays_weights=True),
    "cifar10_baseline": Training(32, 64, 5000, 32, decays_weights=True),
    "ffhq1024_baseline": FACES_1024,
    "ffhq256_5bits_C1": FFHQ_5_BITS,
    "ffhq256_5bits_baseline": FFHQ_5_BITS,
    "ffhq256_8bits_baseline": FFHQ_256,
    "ffhq256_8bits_compact": FFHQ_256,
    "imagenet32_C1": Training(64, 128, 10_000, 32),
    "imagenet32_baseline": Training(64, 128, 10_000, 128),
    "imagenet32_compact": Training(64, 128, 10_000, 32),
    "imagenet64_C1": Training(32, 64, 10_000, 16),
    "imagenet64_baseline": Training(32, 64, 10_000, 16),
    "imagenet64_compact": Training(32, 64, 10_000, 16),
}


def original_sections(name: str) -> dict[str, dict[str, Any]]:
    """All sections and keys of the example ``name``."""
    published, row = PUBLISHED[name], TRAINING[name]
    start, length = (1000 * steps for steps in row.decay)
    return {
        "run": {"name": name, "seed": 420, "num_gpus": 2, "num_cpus": 256, "max_allowed_checkpoints": 5},
        "data": {
            **published.data,
            **{f"{which}_data_path": "../datasets/somewhere/" for which in ("train", "val", "synthesis")},
            "random_horizontal_flip": True,
        },
        "model": published.model,
        "loss": {
            **published.loss,
            "variation_schedule": "Linear",
            "vae_beta_anneal_start": 21,
            "vae_beta_anneal_steps": row.anneal,
            "vae_beta_min": 1e-4,
            "vae_beta_activation_steps": 10_000,
            "vae_beta_growth_rate": 1e-5,
            "use_gamma_schedule": True,
            "gamma_max_steps": row.gamma,
            "scaled_gamma": True,
            "use_weight_decay": row.decays_weights,
            "l2_weight": 1e-2,
        },
        "metrics": {"latent_active_threshold": 1e-4},
        "optimizer": {
            "type": "Adamax",
            "learning_rate_scheme": "cosine",
            "learning_rate": 1e-3,
            "warmup_steps": 100.0,
            "decay_steps": length,
            "decay_start": start,
            "min_learning_rate": row.final_rate,
            "decay_rate": 0.5,
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 1e-8,
            "clip_gradient_norm": row.clip is not None,
            "gradient_clip_norm_value": row.clip or 300.0,
            "gradient_skip": True,
            "gradient_skip_threshold": row.skip,
        },
        "init": {"batch_size": 1},
        "train": {
            "total_train_steps": 1000 * row.steps,
            "batch_size": row.batch,
            "ema_decay": 0.9999,
            "resume_from_ema": False,
            "logging_interval_in_steps": 1,
            "checkpoint_and_eval_interval_in_steps": 10_000,
        },
        "val": {"n_samples_for_validation": row.val_samples, "batch_size": row.val_batch},
        "synthesis": {
            "synthesis_mode": "reconstruction",
            "load_ema_weights": True,
            "variate_masks_quantile": 0.03,
            "save_target_in_reconstruction": False,
            "mask_reconstruction": False,
            "div_stats_subset_ratio": 0.2,
            "n_generation_batches": 1,
            "temperature_settings": [0.8, ("linear", 0.7, 0.9), 1.0],
            "output_temperature": 1.0,
            "batch_size": row.synthesis_batch,
        },
    }


def original_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """As the original's files are written, with comments of both kinds."""
    lines = ["; Efficient-VDVAE"]
    for name, keys in sections.items():
        lines += ["", f"[{name}]", "# what it is"]
        lines += [f"{key} = {value if (name, key) == ('run', 'name') else repr(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"
