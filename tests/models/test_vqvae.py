"""The VQ-VAE and its quantizers: golden numbers, gradients against closed forms, codebooks as they learn."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions.codes import CertainCodes, UniformCodes, perplexity, used_fraction
from lvae_torch.errors import CfgError
from lvae_torch.hparams import load
from lvae_torch.info import describe
from lvae_torch.models.sources import given_latents, posterior_sample
from lvae_torch.models.vqvae.codebook import (
    EmaCodebook,
    LearnedCodebook,
    distances_less_own_norm,
    nearest,
)
from lvae_torch.models.vqvae.quantizer import (
    FiniteScalarQuantizer,
    VectorQuantizer,
    as_rows,
    rotation_trick,
    straight_through,
)

Golden = dict[str, Tensor]
EXAMPLES = Path(__file__).resolve().parents[2] / "egs" / "latent_variable_models"


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    with np.load(shared / "golden" / "misc" / "vq.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(np.asarray(array)) for name, array in file.items()}


def golden_quantizer(golden: Golden, commitment: float = 1.0) -> VectorQuantizer:
    codebook = LearnedCodebook(6, 3).double()
    codebook.start_at(golden["codebook"])
    return VectorQuantizer(codebook, commitment, straight_through)


def test_nearest_codes_and_losses(golden: Golden) -> None:
    quantizer, z_e = golden_quantizer(golden), golden["z_e"]
    rows = as_rows(z_e)
    distances = distances_less_own_norm(rows, golden["codebook"]) + (rows**2).sum(dim=1, keepdim=True)
    assert_close(distances, golden["distances"], rtol=1e-9, atol=1e-12)
    codes = quantizer.codes(z_e)
    assert torch.equal(codes.squeeze(1), golden["indices"])  # of two equal codes the lower
    z_q = quantizer.vectors(codes)
    assert_close(z_q, golden["z_q"], rtol=1e-9, atol=0)
    penalties = quantizer.penalties(z_e, z_q)
    assert_close(penalties["codebook"].mean(), golden["codebook_loss"], rtol=1e-9, atol=0)
    assert_close(penalties["commitment"].mean(), golden["commit_loss"], rtol=1e-9, atol=0)
    counts = CertainCodes(codes, 6).counts().double()
    assert torch.equal(counts, golden["counts"])
    assert_close(perplexity(counts), golden["perplexity"], rtol=1e-9, atol=0)
    assert_close(used_fraction(counts), golden["used_fraction"], rtol=1e-9, atol=0)


def test_gradients_of_a_learned_codebook(golden: Golden) -> None:
    quantizer = golden_quantizer(golden, commitment=0.25)
    z_e = golden["z_e"].clone().requires_grad_()
    z_q = quantizer.vectors(quantizer.codes(z_e))
    decoder_in = quantizer.through(z_e, z_q)
    assert torch.equal(decoder_in, z_q)
    decoder_in.backward(golden["grad_decoder_in"], retain_graph=True)
    assert_close(z_e.grad, golden["grad_ze_straight_through"], rtol=1e-9, atol=0)
    weight = quantizer.codebook.get_parameter("weight")
    assert weight.grad is None or not weight.grad.any()
    torch.stack([term.mean() for term in quantizer.penalties(z_e, z_q).values()]).sum().backward()
    assert_close(z_e.grad, golden["grad_ze_total_beta_025"], rtol=1e-9, atol=1e-15)
    assert_close(weight.grad, golden["grad_codebook"], rtol=1e-9, atol=1e-15)


def test_a_step_of_moving_averages(golden: Golden) -> None:
    codebook = EmaCodebook(6, 3).double()
    codebook.start_at(golden["codebook"])
    codebook.counts.copy_(golden["ema_N0"])
    codebook.sums.copy_(golden["ema_m0"])
    codebook.learn(as_rows(golden["z_e"]), golden["indices"].flatten())
    for ours, name in ((codebook.counts, "N1"), (codebook.sums, "m1"), (codebook.vectors, "codebook1")):
        assert_close(ours, golden[f"ema_{name}"], rtol=1e-9, atol=1e-12)


def test_ties_go_to_the_lowest_code_in_single_precision_too() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(100, 64)
    doubled = torch.cat([vectors, vectors[torch.randperm(100)]])
    rows = torch.cat([vectors, torch.randn(2000, 64)])
    assert nearest(rows, doubled).max() < 100
    assert torch.equal(nearest(vectors, doubled), torch.arange(100))


def test_large_encodings_lose_no_digits() -> None:
    """Codes near one another, encodings far away: the rows' own norms would drown the difference."""
    vectors = torch.tensor([[0.0, 1e-3], [0.0, -1e-3]])
    rows = torch.tensor([[1e4, 0.5], [1e4, -0.5]])
    assert nearest(rows, vectors).tolist() == [0, 1]


def test_the_rotation_turns_an_encoding_into_its_code() -> None:
    """J of the trick, from autograd: |z_q|/|z_e| times an orthogonal matrix that fixes all that is normal to both."""
    torch.manual_seed(0)
    z_e, z_q = torch.randn(2, 5, dtype=torch.float64)

    def through(z: Tensor) -> Tensor:
        return rotation_trick(z.view(1, 5, 1, 1), z_q.view(1, 5, 1, 1)).flatten()

    assert torch.equal(through(z_e), z_q)
    jacobian = torch.autograd.functional.jacobian(through, z_e)
    scale = z_q.norm() / z_e.norm()
    rotation = jacobian / scale
    assert_close(rotation @ rotation.T, torch.eye(5, dtype=torch.float64))
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    assert_close(jacobian @ z_e, z_q)
    plane, _ = torch.linalg.qr(torch.stack([z_e, z_q], dim=1), mode="complete")
    assert_close(rotation @ plane[:, 2:], plane[:, 2:])


def test_finite_scalar_codes_are_all_there_and_go_round() -> None:
    quantizer = FiniteScalarQuantizer((8, 5, 2))
    codes = torch.arange(80).view(80, 1, 1, 1)
    z_q = quantizer.vectors(codes)
    assert quantizer.n_codes == 80
    assert [len(z_q[:, i].unique()) for i in range(3)] == [8, 5, 2]
    assert [z_q.min().item(), z_q.max().item()] == [-1, 1]
    assert torch.equal(quantizer.codes(torch.atanh(0.999 * z_q)), codes)
    torch.manual_seed(0)
    z_e = torch.randn(50, 3, 4, 4)
    off = (quantizer.vectors(quantizer.codes(z_e)) - z_e.tanh()).abs().amax(dim=(0, 2, 3))
    assert (off <= 1 / (torch.tensor([8, 5, 2]) - 1) + 1e-6).all()


def test_the_gradient_through_rounding_is_that_of_tanh() -> None:
    quantizer = FiniteScalarQuantizer((3, 4))
    z_e = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    z_q = quantizer.vectors(quantizer.codes(z_e)).double()
    out = quantizer.through(z_e, z_q)
    assert torch.equal(out, z_q)
    g = torch.randn_like(out)
    out.backward(g)
    assert_close(z_e.grad, g * (1 - z_e.detach().tanh() ** 2))
    assert quantizer.penalties(z_e, z_q) == {}


def test_the_published_size() -> None:
    model = small.vqvae((3, 32, 32), width=256, residual_blocks=2, n_codes=128)
    codebook = model.quantizer.codebook.weight.numel()
    assert codebook == 128 * 256
    assert sum(p.numel() for p in model.parameters()) - codebook == pytest.approx(4.75e6, rel=0.005)
    assert model.latent_shapes() == ((1, 8, 8),)


@pytest.mark.parametrize("codebook", ["learned", "ema"])
def test_the_loss_is_that_of_the_course(codebook: str) -> None:
    """Mean squared error on [-1, 1] plus the two means over code elements, with beta 0 and per dimension."""
    model = small.vqvae(codebook=codebook, commitment=0.25).eval().double()
    x = small.images(4, model.image_shape, 256).double()
    out = model(x, posterior_sample)
    loss, terms = small.objective(3 * 8 * 8, beta=0.0)(x, out, step=0)
    z_e = model.encoder(2 * x - 1)
    z_q = model.quantizer.codebook.vectors[out.latents[0].z.squeeze(1)].movedim(-1, 1)
    mse = (2 * x - 1 - model.decoder(z_q)).square().mean()
    between = (z_e - z_q).square().mean()
    assert_close(loss, mse + (1.25 if codebook == "learned" else 0.25) * between)
    assert terms.penalties.keys() == ({"codebook", "commitment"} if codebook == "learned" else {"commitment"})
    assert_close(terms.kl, torch.full((4, 1), 4 * math.log(5), dtype=terms.kl.dtype))


@pytest.mark.parametrize("section", [{}, {"codebook": "ema", "gradient": "rotation"}, {"levels": (3, 4)}], ids=str)
def test_decoded_codes_are_the_reconstruction(section: dict[str, Any]) -> None:
    """To the bit, through float32, which encodings are kept in."""
    model = small.vqvae(**section).eval()
    x = small.images(6, model.image_shape, 256)
    out = model(x, posterior_sample)
    again = model(None, given_latents([latent.z.float() for latent in out.latents]), n=6)
    assert torch.equal(out.likelihood.mean(), again.likelihood.mean())


def test_codes_are_learned_in_training_only() -> None:
    model = small.vqvae(codebook="ema")
    x = small.images(6, model.image_shape, 256)
    before = model.quantizer.codebook.averages.clone()
    model.eval()(x, posterior_sample)
    assert torch.equal(before, model.quantizer.codebook.averages)
    model.train()(x, posterior_sample)
    assert not torch.equal(before, model.quantizer.codebook.averages)


def test_half_precision_networks_have_full_precision_codes() -> None:
    model = small.vqvae(codebook="ema").train()
    x = small.images(6, model.image_shape, 256)
    with torch.autocast("cpu", torch.bfloat16):
        z_e = model.encode(x)[0]
        assert z_e.dtype == torch.float32
        codes = model.quantizer.codes(z_e)
    assert torch.equal(codes, model.quantizer.codes(z_e))


def test_distributions_of_codes() -> None:
    codes = torch.tensor([[[[0, 2], [1, 2]]]])
    q, p = CertainCodes(codes, 3), UniformCodes(codes, 3)
    assert q.rsample() is codes
    assert q.log_prob(codes).sum() == 0
    assert q.log_prob(codes + 1).max() == -math.inf
    assert_close(q.kl(p), torch.full((1, 1, 2, 2), math.log(3)))
    torch.manual_seed(0)
    many = UniformCodes(torch.zeros(10_000, 1, 1, 1), 3)
    for drawn in (many.rsample(), many.at_noise(torch.randn(10_000, 1, 1, 1))):
        assert_close(torch.bincount(drawn.flatten(), minlength=3) / 1e4, torch.full((3,), 1 / 3), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"levels": (8, 1)}, "needs at least 2"),
        ({"levels": (8, 4), "codebook": "ema", "commitment": 0.25}, "leave codebook, commitment out"),
        ({"n_codes": 1}, "at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small.vqvae(**section)


def test_its_costs_can_be_shown() -> None:
    """Without weights or a dump: also of what is not a convolution."""
    text = describe(load(EXAMPLES / "vqvae_cifar10.cfg", ["data.dumps=nowhere"]))
    for needed in ("1 x 8 x 8 = 64", "GFLOP per image"):
        assert needed in text


def test_sides_that_cannot_be_quartered_are_refused() -> None:
    with pytest.raises(CfgError, match="28x30"):
        small.vqvae((1, 28, 30))
