"""The settings of Efficient-VDVAE, and the names of the original."""

from typing import Any

import pytest
import small

from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import load_text
from lvae_torch.interop.efficient_vdvae import neutral_names, section_from_reference
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE, Style
from lvae_torch.models.efficient_vdvae.stages import Cells, DownStage, UpStage
from lvae_torch.models.likelihoods.heads import likelihood_head

# What is refused

TEXT = "[run]\nname = a\n[data]\ndataset = a\n[model]\nfamily = efficient_vdvae\n"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("scales = (2, 4)", r"scales = \(2, 4\) must begin with 1"),
        ("scales = (1, 2, 3, 6, 12)", "each a larger multiple of the one before"),
        ("scales = (1, 2)", "bottom_up has 5 scales, scales 2"),
        ("scales = (1,)\nbottom_up = [[]]\ntop_down = [[1]]\nkernels = 3", "a list of at least one stage"),
        ("scales = (1, 2)\nbottom_up = ((1,), (1, 1))\ntop_down = ((1,), (1,))\nkernels = 3", "needs the skip of one"),
        ("widths = (1, 2, 3)", "widths has 3 entries, scales 5; give one value, or one per scale"),
        ("down_widths = (1, 2, 3)", "down_widths has 3 entries"),
        ("z_channels = (1, 2, 3, 4, (5, 6))", "z_channels lists 2 stages in entry 5, where the towers have 3"),
        ("top_down = ((0,), (1,))", "must be at least 1"),
        ("likelihood = mixture", "needs one of 'bernoulli'"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        load_text(TEXT + values + "\n", "a.cfg")


@pytest.mark.parametrize(
    ("shape", "n_levels", "section", "message"),
    [
        ((1, 4, 4), 2, {"scales": (1, 2, 8)}, "scales end with 8, but the images are only 4x4"),
        ((1, 28, 28), 2, {"scales": (1, 2, 32), "padding": 1}, "makes 28x28 images 30x30, which .* 32, does not"),
        ((1, 8, 8), 256, {"likelihood": "bernoulli"}, "needs binary images"),
        ((3, 8, 8), 256, {"ratios": 0.05}, "up stage 0: ratio 0.05 of width 6 leaves no channel"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_refused(
    shape: tuple[int, int, int], n_levels: int, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(CfgError, match=message):
        small.very_deep(shape, n_levels, **section)


def test_stages_that_do_not_fit_are_all_named() -> None:
    cells = Cells()
    up = [UpStage(8, 8, cells, 1, 2), UpStage(8, 9, cells, 1, 1), UpStage(16, 16, cells, 1, 2)]
    down = [DownStage(16, 2, cells), DownStage(8, 2, cells), DownStage(8, 2, cells, 1, 4)]
    with pytest.raises(CfgError) as caught:
        EfficientVDVAE((1, 8, 8), up, down, Style(), likelihood_head("bernoulli", 1, 2))
    message = str(caught.value)
    for problem in (
        "up stage 2 pools by 2, but nothing follows that pooling",
        "up stage 0 pools by 2, its partner, down stage 2, unpools by 4",
        "up stage 1 has skip width 9, its partner, down stage 1, width 8",
        "up stages 1 and 2 have widths 8 and 16, with no pooling between",
        "down stages 0 and 1 have widths 16 and 8, with no unpooling between",
    ):
        assert problem in message


# The original's names

NAMES = {
    "bottom_up.input_conv.weight": "input_conv.weight",
    "top_down.output_conv.bias": "output_conv.bias",
    "top_down.trainable_h": "top_h",
    "bottom_up.levels_up.0.1.residual_block.2.convs.3.weight": "up.0.1.cell.2.conv.1.weight",
    "bottom_up.levels_up_downsample.0.residual_block.0.convs.7.bias": "up.0.2.cell.0.conv.3.bias",
    "bottom_up.levels_up_downsample.1.skip_projection.weight": "up.1.0.skip_proj.weight",
    "bottom_up.levels_up_downsample.1.pool.ops.0.weight": "up.1.0.pool.conv.weight",
    "top_down.levels_down_upsample.3.unpool.ops.0.bias": "down.3.0.unpool.conv.bias",
    "top_down.levels_down_upsample.3.unpool.scale_bias": "down.3.0.unpool.bias_map",
    "top_down.levels_down_upsample.3.prior_net.0.convs.1.weight": "down.3.0.prior_net.conv.0.weight",
    "top_down.levels_down.3.0.posterior_net.0.convs.5.weight": "down.3.1.post_net.conv.2.weight",
    "top_down.levels_down.3.4.prior_layer.projection.weight": "down.3.5.prior_proj.weight",
    "top_down.levels_down.3.4.posterior_layer.projection.bias": "down.3.5.post_proj.bias",
    "top_down.levels_down.3.4.z_projection.weight": "down.3.5.z_proj.weight",
    "top_down.levels_down.3.4.residual_block.0.convs.1.weight": "down.3.5.cell.0.conv.0.weight",
}


def test_names_of_the_original() -> None:
    assert neutral_names(NAMES, [2, 0]) == NAMES


def test_unknown_names_are_listed() -> None:
    with pytest.raises(DataError, match=r"module.x, top_down.y"):
        neutral_names([*NAMES, "module.x", "top_down.y"], [2, 0])


def test_neutral_names_are_our_own() -> None:
    ours = {name for name, _ in small.very_deep().named_parameters()}
    for neutral in ("input_conv.weight", "top_h", "up.0.1.skip_proj.weight", "down.1.0.unpool.bias_map"):
        assert neutral in ours


def test_lists_of_the_reference_that_do_not_fit_are_refused() -> None:
    from efficient_vdvae_cases import PUBLISHED

    published = PUBLISHED["cifar10_C1"]
    model, data, loss = published.model, published.data, published.loss
    for changes, message in (
        ({"up_filters": model["up_filters"][1:]}, "up_strides has 33 entries, but up_filters has 32 entries"),
        ({"up_strides": [*model["up_strides"][:-1], 2]}, "up stage 32 pools by 2, but nothing follows"),
        ({"up_skip_filters": [7] * 33}, "up stage 0 has skip width 7, its partner, down stage 32, width 48"),
    ):
        with pytest.raises(CfgError, match=message):
            section_from_reference({**model, **changes}, data, loss)
    with pytest.raises(CfgError, match="no key 'up_filters'"):
        section_from_reference({k: v for k, v in model.items() if k != "up_filters"}, data, loss)
    with pytest.raises(CfgError, match=r"shrink images by 32, which does not divide .* = 48"):
        section_from_reference(model, {**data, "target_res": 48}, loss)
