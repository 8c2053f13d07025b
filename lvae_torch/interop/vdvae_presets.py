"""The five presets of openai/vdvae (``--hps``), and what its authors published of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Values = Mapping[str, Any]

DEFAULTS: Values = MappingProxyType(
    {
        **{"seed": 0, "dataset": "cifar10", "ema_rate": 0.999, "zdim": 16, "width": 512, "custom_width_str": ""},
        **{"bottleneck_multiple": 0.25, "no_bias_above": 64, "num_mixtures": 10, "grad_clip": 200.0},
        **{"skip_threshold": 400.0, "lr": 0.00015, "wd": 0.0, "warmup_iters": 0, "adam_beta1": 0.9, "adam_beta2": 0.9},
        **{"num_epochs": 10000, "n_batch": 32, "iters_per_ckpt": 25000, "iters_per_save": 10000, "epochs_per_eval": 10},
    }
)
"""What its command line has where neither it nor a preset says otherwise, of what means something to us."""

COMMON: Values = {"wd": 0.01, "warmup_iters": 100.0}


@dataclass(frozen=True)
class Preset:
    """One of its ``--hps``, with the hardware and the result its README names."""

    name: str
    hparams: Values
    gpus: int
    """Processes of ``n_batch`` images each."""
    steps: int
    """Updates of the published model; the longest, where there are several."""
    bits_per_dim: float
    n_parameters: int


def _preset(
    name: str, published: tuple[int, int, float, int], enc_blocks: str, dec_blocks: str, **hparams: Any
) -> Preset:
    values = {**DEFAULTS, **COMMON, **hparams, "enc_blocks": enc_blocks, "dec_blocks": dec_blocks}
    return Preset(name, MappingProxyType(values), *published)


PRESETS = {
    preset.name: preset
    for preset in (
        _preset(
            "cifar10", (2, 1_050_000, 2.87, 39_145_700),
            "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
            "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
            dataset="cifar10", width=384, lr=0.0002, n_batch=16, ema_rate=0.9999,
        ),
        _preset(
            "imagenet32", (32, 1_700_000, 3.80, 119_280_868),
            "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
            "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
            dataset="imagenet32", n_batch=8, skip_threshold=300.0, epochs_per_eval=1,
        ),
        _preset(
            "imagenet64", (32, 1_600_000, 3.52, 125_005_860),
            "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
            "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
            dataset="imagenet64", n_batch=4, grad_clip=220.0, skip_threshold=380.0, epochs_per_eval=1,
        ),
        _preset(
            "ffhq256", (32, 1_700_000, 0.61, 114_874_852),
            "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
            "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
            dataset="ffhq_256", n_batch=1, grad_clip=130.0, skip_threshold=180.0, epochs_per_eval=1,
        ),
        _preset(
            "ffhq1024", (32, 1_700_000, 2.42, 109_366_904),
            "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
            "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,256x2,512m256,1024m512",
            dataset="ffhq_1024", n_batch=1, width=16, num_mixtures=2, lr=0.00007, grad_clip=360.0,
            skip_threshold=500.0, epochs_per_eval=1,
            custom_width_str="512:32,256:64,128:512,64:512,32:512,16:512,8:512,4:512,1:512",
        ),
    )
}  # fmt: skip
