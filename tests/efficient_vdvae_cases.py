"""The 20 published configurations of Efficient-VDVAE: the lists of the original's hparams.cfg, in run lengths.

``v`` or ``vxN`` stands for N values v. All 20 have one cell of two inner layers in every block, kernel 1 at both ends,
10 mixtures and latents of scale "std". The way down is the way up backwards, but for the blocks of each resolution:
``down_strides``, ``down_kernel_size``, ``down_mid_filters_ratio`` and ``down_filters``, which is ``up_skip_filters``
backwards. That list begins with ``input_conv_filters``; from its second value on, and with its last once more, it is
``up_filters``.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Topology:
    """Lists of the original that configurations of one dataset share."""

    up_strides: str
    up_kernel_size: str
    up_n_blocks_per_res: str
    down_n_blocks_per_res: str


TOPOLOGIES: dict[str, Topology] = {
    "mnist": Topology(
        up_strides="2 1 2 1x9 2 1x4 4 1x5",
        up_kernel_size="3x18 1x5",
        up_n_blocks_per_res="0x23",
        down_n_blocks_per_res="0x23",
    ),
    "celeba64": Topology(
        up_strides="1x11 2 1x8 2 1x6 2 1x6 2 1x3 4 1x2",
        up_kernel_size="3x39 1x2",
        up_n_blocks_per_res="0x41",
        down_n_blocks_per_res="0x13 4 0x6 7 0x8 10 0x11",
    ),
    "faces1024": Topology(
        up_strides="2 1 2 1x2 2 1x4 2 1x6 2 1x11 2 1x7 2 1x4 2 1x3 4 1x2",
        up_kernel_size="3x47 1x2",
        up_n_blocks_per_res="0x49",
        down_n_blocks_per_res="0x31 6 0x6 8 0x4 3 0x2 3 0 3",
    ),
    "faces256_5bits": Topology(
        up_strides="2 1x7 2 1x12 2 1x17 2 1x7 2 1x4 2 1x3 4 1x2",
        up_kernel_size="3x57 1x2",
        up_n_blocks_per_res="3 1 0x46 1 0x4 2 0x3 2 0",
        down_n_blocks_per_res="0x11 2 0x7 4 0x17 1 0x21",
    ),
    "faces256": Topology(
        up_strides="1x5 2 1x12 2 1x12 2 1x11 2 1x7 2 1x4 2 1x3 4 1x2",
        up_kernel_size="3x61 1x2",
        up_n_blocks_per_res="0x52 1 0x4 2 0x3 2 0",
        down_n_blocks_per_res="0x11 2 0x7 4 0x43",
    ),
    "cifar10": Topology(
        up_strides="1x11 2 1x6 2 1x6 2 1x3 4 1x3",
        up_kernel_size="3x30 1x3",
        up_n_blocks_per_res="0x33",
        down_n_blocks_per_res="0x15 4 0x6 10 0x10",
    ),
    "imagenet32": Topology(
        up_strides="1x15 2 1x9 2 1x8 2 1x6 4 1x6",
        up_kernel_size="3x42 1x6",
        up_n_blocks_per_res="0x48",
        down_n_blocks_per_res="0x13 10 0x8 15 0x25",
    ),
    "imagenet64": Topology(
        up_strides="1x4 2 1x15 2 1x9 2 1x8 2 1x6 4 1x6",
        up_kernel_size="3x47 1x6",
        up_n_blocks_per_res="0x53",
        down_n_blocks_per_res="0x13 10 0x8 15 0x25 6 0x4",
    ),
}


@dataclass(frozen=True)
class Widths:
    """What tells the sizes of one dataset apart."""

    up_skip_filters: str
    up_mid_filters_ratio: str
    latent_variates: int
    """Each of ``down_latent_variates``."""


WIDTHS: dict[str, Widths] = {
    "mnist": Widths("32 64x2 128x10 256x5 512x5", "1x23", 32),
    "celeba64_baseline": Widths("512x41", "0.25x41", 32),
    "celeba64_compact": Widths("32x12 64x9 128x7 256x7 512x6", "1x12 0.5x9 0.25x20", 32),
    "faces1024": Widths("8 16x2 32x3 64x5 128x7 256x12 512x19", "1x3 0.5x3 0.25x43", 64),
    "faces256_5bits_baseline": Widths("512x59", "0.25x59", 32),
    "faces256_5bits_C1": Widths("128x22 256x26 512x11", "1 0.5x8 0.25x50", 32),
    "faces256_baseline": Widths("512x63", "0.25x63", 64),
    "faces256_compact": Widths("32x6 64x13 128x13 256x12 512x19", "1x6 0.5x13 0.25x44", 64),
    "cifar10_C1": Widths("48x12 96x7 192x7 384x7", "1x12 0.5x7 0.25x14", 16),
    "cifar10_baseline": Widths("384x33", "0.25x33", 32),
    "imagenet32_C1": Widths("64x16 128x10 256x9 512x13", "1x16 0.5x10 0.25x22", 48),
    "imagenet32_baseline": Widths("512x48", "0.25x48", 32),
    "imagenet32_compact": Widths("32x16 64x10 128x9 256x7 512x6", "1x16 0.5x10 0.25x22", 32),
    "imagenet64_C1": Widths("64x21 256x19 512x13", "1x5 0.5x16 0.25x32", 64),
    "imagenet64_baseline": Widths("512x53", "0.25x53", 32),
    "imagenet64_compact": Widths("32x5 64x16 128x10 256x9 512x13", "1x5 0.5x16 0.25x32", 32),
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
        topology, widths = TOPOLOGIES[self.topology], WIDTHS[self.widths]
        strides, kernels = expanded(topology.up_strides), expanded(topology.up_kernel_size)
        filters, ratios = expanded(widths.up_skip_filters), expanded(widths.up_mid_filters_ratio)
        n = len(strides)
        lists = {
            "input_conv_filters": filters[0],
            "up_strides": strides,
            "up_n_blocks_per_res": expanded(topology.up_n_blocks_per_res),
            "up_kernel_size": kernels,
            "up_filters": [*filters[1:], filters[-1]],
            "up_skip_filters": filters,
            "up_mid_filters_ratio": ratios,
            "down_strides": strides[::-1],
            "down_n_blocks_per_res": expanded(topology.down_n_blocks_per_res),
            "down_kernel_size": kernels[::-1],
            "down_filters": filters[::-1],
            "down_mid_filters_ratio": ratios[::-1],
            "down_latent_variates": [widths.latent_variates] * n,
        }
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
