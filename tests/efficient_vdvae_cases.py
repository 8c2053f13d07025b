"""The 20 published configurations of Efficient-VDVAE: the lists of the original's hparams.cfg, in run lengths.

``v`` or ``vxN`` stands for N values v. All 20 have one cell of two inner layers in every block, kernel 1 at both ends,
10 mixtures and latents of scale "std"; ``down_strides`` is ``up_strides`` backwards.
"""

from dataclasses import dataclass
from typing import Any

TOPOLOGIES: dict[str, dict[str, str]] = {
    "mnist": {
        "up_strides": "2 1 2 1x9 2 1x4 4 1x5",
        "up_n_blocks_per_res": "0x23",
        "up_kernel_size": "3x18 1x5",
        "down_n_blocks_per_res": "0x23",
        "down_kernel_size": "1x5 3x18",
    },
    "celeba64": {
        "up_strides": "1x11 2 1x8 2 1x6 2 1x6 2 1x3 4 1x2",
        "up_n_blocks_per_res": "0x41",
        "up_kernel_size": "3x39 1x2",
        "down_n_blocks_per_res": "0x13 4 0x6 7 0x8 10 0x11",
        "down_kernel_size": "1x2 3x39",
    },
    "faces1024": {
        "up_strides": "2 1 2 1x2 2 1x4 2 1x6 2 1x11 2 1x7 2 1x4 2 1x3 4 1x2",
        "up_n_blocks_per_res": "0x49",
        "up_kernel_size": "3x47 1x2",
        "down_n_blocks_per_res": "0x31 6 0x6 8 0x4 3 0x2 3 0 3",
        "down_kernel_size": "1x2 3x47",
    },
    "faces256_5bits": {
        "up_strides": "2 1x7 2 1x12 2 1x17 2 1x7 2 1x4 2 1x3 4 1x2",
        "up_n_blocks_per_res": "3 1 0x46 1 0x4 2 0x3 2 0",
        "up_kernel_size": "3x57 1x2",
        "down_n_blocks_per_res": "0x11 2 0x7 4 0x17 1 0x21",
        "down_kernel_size": "1x2 3x57",
    },
    "faces256": {
        "up_strides": "1x5 2 1x12 2 1x12 2 1x11 2 1x7 2 1x4 2 1x3 4 1x2",
        "up_n_blocks_per_res": "0x52 1 0x4 2 0x3 2 0",
        "up_kernel_size": "3x61 1x2",
        "down_n_blocks_per_res": "0x11 2 0x7 4 0x43",
        "down_kernel_size": "1x2 3x61",
    },
    "cifar10": {
        "up_strides": "1x11 2 1x6 2 1x6 2 1x3 4 1x3",
        "up_n_blocks_per_res": "0x33",
        "up_kernel_size": "3x30 1x3",
        "down_n_blocks_per_res": "0x15 4 0x6 10 0x10",
        "down_kernel_size": "1x3 3x30",
    },
    "imagenet32": {
        "up_strides": "1x15 2 1x9 2 1x8 2 1x6 4 1x6",
        "up_n_blocks_per_res": "0x48",
        "up_kernel_size": "3x42 1x6",
        "down_n_blocks_per_res": "0x13 10 0x8 15 0x25",
        "down_kernel_size": "1x6 3x42",
    },
    "imagenet64": {
        "up_strides": "1x4 2 1x15 2 1x9 2 1x8 2 1x6 4 1x6",
        "up_n_blocks_per_res": "0x53",
        "up_kernel_size": "3x47 1x6",
        "down_n_blocks_per_res": "0x13 10 0x8 15 0x25 6 0x4",
        "down_kernel_size": "1x6 3x47",
    },
}

WIDTHS: dict[str, dict[str, str]] = {
    "mnist": {
        "input_conv_filters": "32",
        "up_filters": "64x2 128x10 256x5 512x6",
        "up_skip_filters": "32 64x2 128x10 256x5 512x5",
        "up_mid_filters_ratio": "1x23",
        "down_filters": "512x5 256x5 128x10 64x2 32",
        "down_mid_filters_ratio": "1x23",
        "down_latent_variates": "32x23",
    },
    "celeba64_baseline": {
        "input_conv_filters": "512",
        "up_filters": "512x41",
        "up_skip_filters": "512x41",
        "up_mid_filters_ratio": "0.25x41",
        "down_filters": "512x41",
        "down_mid_filters_ratio": "0.25x41",
        "down_latent_variates": "32x41",
    },
    "celeba64_compact": {
        "input_conv_filters": "32",
        "up_filters": "32x11 64x9 128x7 256x7 512x7",
        "up_skip_filters": "32x12 64x9 128x7 256x7 512x6",
        "up_mid_filters_ratio": "1x12 0.5x9 0.25x20",
        "down_filters": "512x6 256x7 128x7 64x9 32x12",
        "down_mid_filters_ratio": "0.25x20 0.5x9 1x12",
        "down_latent_variates": "32x41",
    },
    "faces1024": {
        "input_conv_filters": "8",
        "up_filters": "16x2 32x3 64x5 128x7 256x12 512x20",
        "up_skip_filters": "8 16x2 32x3 64x5 128x7 256x12 512x19",
        "up_mid_filters_ratio": "1x3 0.5x3 0.25x43",
        "down_filters": "512x19 256x12 128x7 64x5 32x3 16x2 8",
        "down_mid_filters_ratio": "0.25x43 0.5x3 1x3",
        "down_latent_variates": "64x49",
    },
    "faces256_5bits_baseline": {
        "input_conv_filters": "512",
        "up_filters": "512x59",
        "up_skip_filters": "512x59",
        "up_mid_filters_ratio": "0.25x59",
        "down_filters": "512x59",
        "down_mid_filters_ratio": "0.25x59",
        "down_latent_variates": "32x59",
    },
    "faces256_5bits_C1": {
        "input_conv_filters": "128",
        "up_filters": "128x21 256x26 512x12",
        "up_skip_filters": "128x22 256x26 512x11",
        "up_mid_filters_ratio": "1 0.5x8 0.25x50",
        "down_filters": "512x11 256x26 128x22",
        "down_mid_filters_ratio": "0.25x50 0.5x8 1",
        "down_latent_variates": "32x59",
    },
    "faces256_baseline": {
        "input_conv_filters": "512",
        "up_filters": "512x63",
        "up_skip_filters": "512x63",
        "up_mid_filters_ratio": "0.25x63",
        "down_filters": "512x63",
        "down_mid_filters_ratio": "0.25x63",
        "down_latent_variates": "64x63",
    },
    "faces256_compact": {
        "input_conv_filters": "32",
        "up_filters": "32x5 64x13 128x13 256x12 512x20",
        "up_skip_filters": "32x6 64x13 128x13 256x12 512x19",
        "up_mid_filters_ratio": "1x6 0.5x13 0.25x44",
        "down_filters": "512x19 256x12 128x13 64x13 32x6",
        "down_mid_filters_ratio": "0.25x44 0.5x13 1x6",
        "down_latent_variates": "64x63",
    },
    "cifar10_C1": {
        "input_conv_filters": "48",
        "up_filters": "48x11 96x7 192x7 384x8",
        "up_skip_filters": "48x12 96x7 192x7 384x7",
        "up_mid_filters_ratio": "1x12 0.5x7 0.25x14",
        "down_filters": "384x7 192x7 96x7 48x12",
        "down_mid_filters_ratio": "0.25x14 0.5x7 1x12",
        "down_latent_variates": "16x33",
    },
    "cifar10_baseline": {
        "input_conv_filters": "384",
        "up_filters": "384x33",
        "up_skip_filters": "384x33",
        "up_mid_filters_ratio": "0.25x33",
        "down_filters": "384x33",
        "down_mid_filters_ratio": "0.25x33",
        "down_latent_variates": "32x33",
    },
    "imagenet32_C1": {
        "input_conv_filters": "64",
        "up_filters": "64x15 128x10 256x9 512x14",
        "up_skip_filters": "64x16 128x10 256x9 512x13",
        "up_mid_filters_ratio": "1x16 0.5x10 0.25x22",
        "down_filters": "512x13 256x9 128x10 64x16",
        "down_mid_filters_ratio": "0.25x22 0.5x10 1x16",
        "down_latent_variates": "48x48",
    },
    "imagenet32_baseline": {
        "input_conv_filters": "512",
        "up_filters": "512x48",
        "up_skip_filters": "512x48",
        "up_mid_filters_ratio": "0.25x48",
        "down_filters": "512x48",
        "down_mid_filters_ratio": "0.25x48",
        "down_latent_variates": "32x48",
    },
    "imagenet32_compact": {
        "input_conv_filters": "32",
        "up_filters": "32x15 64x10 128x9 256x7 512x7",
        "up_skip_filters": "32x16 64x10 128x9 256x7 512x6",
        "up_mid_filters_ratio": "1x16 0.5x10 0.25x22",
        "down_filters": "512x6 256x7 128x9 64x10 32x16",
        "down_mid_filters_ratio": "0.25x22 0.5x10 1x16",
        "down_latent_variates": "32x48",
    },
    "imagenet64_C1": {
        "input_conv_filters": "64",
        "up_filters": "64x20 256x19 512x14",
        "up_skip_filters": "64x21 256x19 512x13",
        "up_mid_filters_ratio": "1x5 0.5x16 0.25x32",
        "down_filters": "512x13 256x19 64x21",
        "down_mid_filters_ratio": "0.25x32 0.5x16 1x5",
        "down_latent_variates": "64x53",
    },
    "imagenet64_baseline": {
        "input_conv_filters": "512",
        "up_filters": "512x53",
        "up_skip_filters": "512x53",
        "up_mid_filters_ratio": "0.25x53",
        "down_filters": "512x53",
        "down_mid_filters_ratio": "0.25x53",
        "down_latent_variates": "32x53",
    },
    "imagenet64_compact": {
        "input_conv_filters": "32",
        "up_filters": "32x4 64x16 128x10 256x9 512x14",
        "up_skip_filters": "32x5 64x16 128x10 256x9 512x13",
        "up_mid_filters_ratio": "1x5 0.5x16 0.25x32",
        "down_filters": "512x13 256x9 128x10 64x16 32x5",
        "down_mid_filters_ratio": "0.25x32 0.5x16 1x5",
        "down_latent_variates": "32x53",
    },
}


@dataclass(frozen=True)
class Published:
    """One configuration, and what the original counts of it."""

    topology: str
    widths: str
    dataset: str
    side: int
    bits: int
    millions: float
    """Parameters, to two digits behind the point."""
    layers: int
    latents: int
    """Scalars per image."""
    smoothing: tuple[float, float] = (0.6931472, 0.6931472)
    """Of latents and output."""
    output_base: str = "std"
    min_mol_logscale: float = -250.0

    @property
    def model(self) -> dict[str, Any]:
        """The [model] section, evaluated."""
        lists = {k: expanded(v) for k, v in (TOPOLOGIES[self.topology] | WIDTHS[self.widths]).items()}
        n = len(lists["up_strides"])
        lists["input_conv_filters"] = lists["input_conv_filters"][0]
        lists["down_strides"] = lists["up_strides"][::-1]
        ones_and_twos = {f"{tower}_{key}": [v] * n for tower in ("up", "down") for key, v in CELLS.items()}
        smoothing = {
            "gradient_smoothing_beta": self.smoothing[0],
            "output_gradient_smoothing_beta": self.smoothing[1],
            "output_distribution_base": self.output_base,
        }
        return lists | ones_and_twos | COMMON | smoothing

    @property
    def data(self) -> dict[str, Any]:
        channels = 1 if self.dataset == "binarized_mnist" else 3
        return {
            "dataset_source": self.dataset, "target_res": self.side, "channels": channels, "num_bits": float(self.bits)
        }  # fmt: skip

    @property
    def loss(self) -> dict[str, Any]:
        return {"min_mol_logscale": self.min_mol_logscale}


CELLS = {"n_blocks": 1, "n_layers": 2}
COMMON: dict[str, Any] = {
    "stable_init": True,
    "initialize_prior_weights_as_zero": False,
    "use_1x1_conv": True,
    "distribution_base": "std",
    "use_residual_distribution": False,
    "input_kernel_size": (1, 1),
    "output_kernel_size": (1, 1),
    "num_output_mixtures": 10,
}


def expanded(runs: str) -> list[Any]:
    """``1x2 4`` -> [1, 1, 4]."""
    pairs = [run.split("x") if "x" in run else (run, "1") for run in runs.split()]
    return [float(v) if "." in v else int(v) for v, n in pairs for _ in range(int(n))]


PUBLISHED: dict[str, Published] = {
    "binarized_mnist_baseline": Published("mnist", "mnist", "binarized_mnist", 32, 8, 69.92, 23, 72_352),
    "celebA64_baseline": Published("celeba64", "celeba64_baseline", "celebA", 64, 8, 131.40, 62, 3_514_432),
    "celebA64_compact": Published("celeba64", "celeba64_compact", "celebA", 64, 8, 25.43, 62, 3_514_432),
    "celebAHQ1024_baseline": Published(
        "faces1024", "faces1024", "celebAHQ", 1024, 8, 75.87, 72, 395_468_928, smoothing=(0.4, 0.4)
    ),
    "celebAHQ256_5bits_baseline": Published(
        "faces256_5bits", "faces256_5bits_baseline", "celebAHQ", 256, 5, 197.68, 66, 8_941_632, min_mol_logscale=-14.0
    ),
    "celebAHQ256_8bits_baseline": Published(
        "faces256", "faces256_baseline", "celebAHQ", 256, 8, 208.87, 69, 43_442_304
    ),
    "celebAHQ256_8bits_compact": Published("faces256", "faces256_compact", "celebAHQ", 256, 8, 71.23, 69, 43_442_304),
    "cifar10_C1": Published("cifar10", "cifar10_C1", "cifar-10", 32, 8, 18.12, 47, 413_744),
    "cifar10_baseline": Published("cifar10", "cifar10_baseline", "cifar-10", 32, 8, 56.60, 47, 827_488),
    "ffhq1024_baseline": Published(
        "faces1024", "faces1024", "ffhq", 1024, 8, 75.87, 72, 395_468_928, smoothing=(0.4, 0.4)
    ),
    "ffhq256_5bits_C1": Published(
        "faces256_5bits",
        "faces256_5bits_C1",
        "ffhq",
        256,
        5,
        67.03,
        66,
        8_941_632,
        smoothing=(0.6931472, 1.0),
        output_base="logstd",
        min_mol_logscale=-14.0,
    ),
    "ffhq256_5bits_baseline": Published(
        "faces256_5bits", "faces256_5bits_baseline", "ffhq", 256, 5, 197.68, 66, 8_941_632, min_mol_logscale=-14.0
    ),
    "ffhq256_8bits_baseline": Published("faces256", "faces256_baseline", "ffhq", 256, 8, 208.87, 69, 43_442_304),
    "ffhq256_8bits_compact": Published("faces256", "faces256_compact", "ffhq", 256, 8, 71.23, 69, 43_442_304),
    "imagenet32_C1": Published(
        "imagenet32",
        "imagenet32_C1",
        "imagenet",
        32,
        8,
        52.29,
        73,
        1_157_664,
        smoothing=(0.6931472, 1.0),
        output_base="logstd",
    ),
    "imagenet32_baseline": Published("imagenet32", "imagenet32_baseline", "imagenet", 32, 8, 145.07, 73, 771_776),
    "imagenet32_compact": Published("imagenet32", "imagenet32_compact", "imagenet", 32, 8, 19.56, 73, 771_776),
    "imagenet64_C1": Published(
        "imagenet64",
        "imagenet64_C1",
        "imagenet",
        64,
        8,
        57.00,
        84,
        4_427_136,
        smoothing=(0.6931472, 1.0),
        output_base="logstd",
    ),
    "imagenet64_baseline": Published("imagenet64", "imagenet64_baseline", "imagenet", 64, 8, 168.37, 84, 2_213_568),
    "imagenet64_compact": Published("imagenet64", "imagenet64_compact", "imagenet", 64, 8, 42.55, 84, 2_213_568),
}
