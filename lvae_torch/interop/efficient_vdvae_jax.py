"""Weights of the original Efficient-VDVAE's JAX half under our names, one at a time.

Kernels are (rows, columns, in, out) there and maps (1, H, W, C). The order of channels is ours, but for the last
convolution of colour models: there the colour runs fastest, here slowest.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lvae_torch.errors import DataError
from lvae_torch.interop.flax_state import FlaxState, StoredArray

COLOURS, KINDS = 3, 3  # a mean, a scale and a coefficient for each colour
WHOLE = {
    "bottom_up/input_conv/conv": "input_conv",
    "top_down/output_conv/conv": "output_conv",
    "top_down/trainable_h": "top_h",
}
BLOCK = re.compile(r"(?:bottom_up|top_down)/block_(up|down)_level_(\d+)_(\d+|downsample|upsample)/(.+)")
INSIDE = [
    (re.compile(r"residual_block_(\d+)/conv_(\d+)/conv"), r"cell.\1.conv.\2"),
    (re.compile(r"prior_net/conv_(\d+)/conv"), r"prior_net.conv.\1"),
    (re.compile(r"posterior_net/conv_(\d+)/conv"), r"post_net.conv.\1"),
    (re.compile(r"prior_gaussian_layer/projection/conv"), "prior_proj"),
    (re.compile(r"posterior_gaussian_layer/projection/conv"), "post_proj"),
    (re.compile(r"z_projection/z_projection/conv"), "z_proj"),
    (re.compile(r"skip_projection/conv"), "skip_proj"),
    (re.compile(r"pooling_layer/conv/conv"), "pool.conv"),
    (re.compile(r"unpooling_layer/conv/conv"), "unpool.conv"),
    (re.compile(r"unpooling_layer/scale_bias"), "unpool.bias_map"),
]
LEAVES = {"kernel": "weight", "bias": "bias"}


def our_name(path: str, up_n_blocks_per_res: Sequence[int]) -> str | None:
    """Our parameter for a path below ``params``; None if no such model has it."""
    if path in WHOLE:
        return WHOLE[path]
    place, _, leaf = path.rpartition("/")
    if leaf in LEAVES and (module := _module(place, up_n_blocks_per_res)) is not None:
        return f"{module}.{LEAVES[leaf]}"
    return _module(path, up_n_blocks_per_res) if leaf == "scale_bias" else None


def _module(place: str, up_n_blocks_per_res: Sequence[int]) -> str | None:
    if place in WHOLE:
        return WHOLE[place]
    if (match := BLOCK.fullmatch(place)) is None:
        return None
    tower, stage, block, rest = match[1], int(match[2]), match[3], match[4]
    inside = next((pattern.sub(ours, rest) for pattern, ours in INSIDE if pattern.fullmatch(rest)), None)
    if inside is None or stage >= len(up_n_blocks_per_res):
        return None
    if block == "downsample":
        return f"up.{stage}.{up_n_blocks_per_res[stage]}.{inside}"
    number = 0 if block == "upsample" else int(block) + (tower == "down")
    return f"{tower}.{stage}.{number}.{inside}"


def tensors(
    state: FlaxState, part: str, up_n_blocks_per_res: Sequence[int], n_mixtures: int | None
) -> Callable[[], Iterator[tuple[str, Tensor]]]:
    """What gives (our name, tensor) of every array below ``part``, read when it is its turn.

    ``n_mixtures``: components of the mixture, of a colour model; None leaves the last convolution as it is.

    Raises:
        DataError: listing the paths that no such model has.
    """
    arrays = state.below(part)
    names = {path: our_name(path, up_n_blocks_per_res) for path in arrays}
    if unknown := sorted(path for path, ours in names.items() if ours is None):
        raise DataError(f"{state.path}: no weights of Efficient-VDVAE's JAX half: {', '.join(unknown[:5])}.")

    def give() -> Iterator[tuple[str, Tensor]]:
        for path, array in arrays.items():
            ours = str(names[path])
            values = _converted(ours, state.read(array))
            if ours.startswith("output_conv.") and n_mixtures is not None:
                values = values[colour_last(n_mixtures, values.shape[0])]
            yield ours, torch.from_numpy(np.ascontiguousarray(values))

    return give


def shapes(arrays: Mapping[str, StoredArray], up_n_blocks_per_res: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Our name -> shape here, of arrays below ``params``; names that no such model has stay as they are."""
    names = {path: our_name(path, up_n_blocks_per_res) or path for path in arrays}
    no_numbers = np.float32(0)
    return {
        names[path]: _converted(names[path], np.broadcast_to(no_numbers, array.shape)).shape
        for path, array in arrays.items()
    }


def colour_last(n_mixtures: int, n_channels: int) -> np.ndarray:
    """For each channel of our last convolution, the one of theirs, (n_channels,).

    Raises:
        DataError: if the convolution has another number of channels than such a mixture needs.
    """
    if n_channels != n_mixtures * (1 + KINDS * COLOURS):
        raise DataError(f"output_conv has {n_channels} channels; {n_mixtures} components need {10 * n_mixtures}.")
    theirs = np.arange(n_mixtures, n_channels).reshape(KINDS * n_mixtures, COLOURS)
    return np.concatenate([np.arange(n_mixtures), theirs.T.ravel()])


def _converted(ours: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 4:
        return values
    return values.transpose((0, 3, 1, 2) if ours.endswith(("top_h", "bias_map")) else (3, 2, 0, 1))
