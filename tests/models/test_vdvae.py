"""VDVAE: its block strings, its convolution, its widths, and images that the original cannot take."""

import pytest
import small
import torch
from torch.testing import assert_close

from lvae_torch.cfg.section import KeysError
from lvae_torch.distributions.coarse import CoarseLikelihood
from lvae_torch.errors import CfgError
from lvae_torch.models.likelihoods.heads import Options, likelihood_head
from lvae_torch.models.sources import given_noise, posterior_sample
from lvae_torch.models.vdvae.blocks import DecoderBlock, EncoderBlock, custom_widths, decoder_blocks, encoder_blocks
from lvae_torch.models.vdvae.section import VDVAESection


def test_block_strings() -> None:
    assert encoder_blocks("8x2, 8d2 ,4,4d4") == [
        *(EncoderBlock(8), EncoderBlock(8), EncoderBlock(8, 2), EncoderBlock(4), EncoderBlock(4, 4))
    ]
    assert decoder_blocks("1x2,4m1,4") == [DecoderBlock(1), DecoderBlock(1), DecoderBlock(4, 1), DecoderBlock(4)]
    widths = custom_widths(" 4:8 , 1:16", 6)
    assert (widths[8], widths[4], widths[1]) == (6, 8, 16)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"enc_blocks": "8x1,8d2,oops"}, "enc_blocks: 'oops' is no block"),
        ({"enc_blocks": "8m4"}, "enc_blocks: '8m4' is no block; write A, AxN or AdK"),
        ({"dec_blocks": "8d4"}, "dec_blocks: '8d4' is no block; write A, AxN or AmK"),
        ({"dec_blocks": "8x99999999"}, "more than 10,000 blocks"),
        ({"custom_width_str": "4=8"}, "custom_width_str: '4=8' is no resolution:width"),
        ({"enc_blocks": "8x1,4x1"}, "block 1 is at 4, but gets maps of resolution 8"),
        ({"enc_blocks": "8d3"}, "8d3: 3 does not divide it"),
        ({"dec_blocks": "1x1,2x1,8m1"}, "block 1 at 2 has no partner: enc_blocks makes maps of 1, 4, 8"),
        ({"dec_blocks": "1x1,8m4"}, "block 1 at 8 adds the state of 4, but no block before it has that resolution"),
        ({"dec_blocks": "1x1,4m1"}, "dec_blocks has no block at 8, the resolution of the image"),
        ({"custom_width_str": "1:4"}, "towards coarser maps widths may only stay or grow"),
        ({"custom_width_str": "8:7"}, "resolution 8, the image's, 7 channels; that is width = 6"),
        ({"custom_width_str": "2:9"}, "names resolutions that no block has: 2"),
        ({"bottleneck_multiple": 0.1, "custom_width_str": ""}, "bottleneck_multiple = 0.1 leaves no channel at"),
    ],
)
def test_what_does_not_fit_is_told_when_the_cfg_is_read(keys: dict[str, object], told: str) -> None:
    values = {"enc_blocks": "8x1,8d2,4d4,1x1", "dec_blocks": "1x1,4m1,8m4", "width": 6, "custom_width_str": "4:8,1:8"}
    with pytest.raises((KeysError, ValueError), match=r"(?s).*") as caught:
        VDVAESection(**{**values, **keys})  # type: ignore[arg-type]
    assert told in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)enc_blocks: 'a'.*dec_blocks: 'b'.*custom_width_str: 'c'"):
        VDVAESection(enc_blocks="a", dec_blocks="b", custom_width_str="c")


def test_a_state_without_a_learned_map_begins_at_zero() -> None:
    model = small.residual(no_bias_above=1, dec_blocks="1x1,4m1,8x1")
    assert [tuple(m.shape) for m in model.bias_maps] == [(1, 9, 1, 1)]
    zeros = [torch.zeros(2, *shape) for shape in model.latent_shapes()]
    with torch.no_grad():
        before = model(None, given_noise(zeros), n=2).latents[2].prior.mean
        model.top_down[1].resnet.c4.weight.zero_()  # what is at resolution 4 does not reach 8, which mixes nothing in
        after = model(None, given_noise(zeros), n=2).latents[2].prior.mean
    assert torch.equal(before, after)


def test_half_precision_has_gradients_in_full() -> None:
    model = small.residual().train()
    x = small.images(4, (3, 8, 8), 256)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(x, posterior_sample)
        loss = -terms.likelihood.log_prob(x).mean() + sum(latent.kl.mean() for latent in terms.latents)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 8, 16)])
def test_any_number_of_colours_and_oblong_images(shape: tuple[int, int, int]) -> None:
    """The original takes square colour images alone."""
    model = small.residual(shape)
    assert model.latent_shapes()[-1] == (2, 8, shape[2])
    assert model(None, lambda i, p, q: p.mean, n=2).likelihood.mean().shape == (2, *shape)


def test_images_that_do_not_fit_are_refused() -> None:
    section = VDVAESection()
    with pytest.raises(CfgError, match="begins at resolution 32, but the images are 28x28"):
        section.build((1, 28, 28), 256)
    with pytest.raises(CfgError, match="likelihood_bits = 5 cuts images of 256 levels, but these have 32"):
        VDVAESection(likelihood_bits=5).build((3, 32, 32), 32)


def test_fewer_bits_than_are_seen() -> None:
    """Exact bins of 5 bits have mass 1; those of VDVAE do not, and its last bin has no tail."""
    levels = torch.arange(32).view(32, 1, 1, 1) / 31
    params = torch.tensor([0.0, 0.2, -2.0]).view(1, 3, 1, 1).expand(32, -1, 1, 1).double()
    for bins, mass in (("exact", 1.0), ("overlapping_closed", 1.025)):
        options = Options(1, mixture={"bins": bins, "span": 248 / 127.5})
        likelihood = likelihood_head("discretized_logistic_mixture", 1, 32, options).likelihood(params)
        assert float(likelihood.log_prob(levels).exp().sum()) == pytest.approx(mass, abs=6e-4)
        assert bool(VDVAESection(bins=bins).remark) is (mass > 1), "also if the images themselves have 5 bits"
        seen = CoarseLikelihood(likelihood, 32, 256)
        assert_close(seen.log_prob((8 * torch.arange(32).view(32, 1, 1, 1) + 7) / 255), likelihood.log_prob(levels))
