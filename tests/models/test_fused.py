"""Fused functions against their plain forms: values, gradients in float64, and what they keep."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, silu
from torch.testing import assert_close

from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models import fused
from lvae_torch.models.fused import activated_conv, gated_sum
from lvae_torch.models.spatial_lvae.residual import NONLINEARITIES

PLAIN = {"gelu": gelu, "silu": silu}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def drawn(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(*shape, dtype=torch.float64)
    return (x.to(memory_format=layout) if len(shape) == 4 else x).requires_grad_()


def same(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """The same values and gradients, and gradients that finite differences confirm."""
    assert_close(ours(*inputs), plain(*inputs))
    weights = torch.randn_like(ours(*inputs))
    assert_close(
        torch.autograd.grad(ours(*inputs), inputs, weights), torch.autograd.grad(plain(*inputs), inputs, weights)
    )
    assert torch.autograd.gradcheck(ours, inputs)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("few_pixels", [0, 10_000])
def test_activation_and_convolution(
    kind: str, kernel: int, layout: torch.memory_format, few_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "FEW_PIXELS", few_pixels)
    torch.manual_seed(0)
    x, weight, bias = drawn(2, 5, 3, 4, layout=layout), drawn(3, 5, kernel, kernel), drawn(3)
    same(
        lambda x, w, b: activated_conv(kind, x, w, b),
        lambda x, w, b: conv2d(PLAIN[kind](x), w, b, padding=kernel // 2),
        *(x, weight, bias),
    )
    assert torch.autograd.gradcheck(lambda x, weight: activated_conv(kind, x, weight, None), (x, weight))
    assert torch.autograd.gradcheck(lambda weight: activated_conv(kind, x.detach(), weight, bias), (weight,))
    assert torch.autograd.gradcheck(lambda x: activated_conv(kind, x, weight.detach(), bias.detach()), (x,))


@pytest.mark.parametrize("kind", NONLINEARITIES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("few_pixels", [0, 10_000])
def test_gated_sum(kind: str, layout: torch.memory_format, few_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "FEW_PIXELS", few_pixels)
    torch.manual_seed(0)
    inputs = drawn(2, 3, 2, 3, layout=layout), drawn(2, 3, 2, 3, layout=layout), drawn(6, 3, 1, 1), drawn(6)

    def plain(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        value, gate = conv2d(h, weight, bias).chunk(2, dim=1)
        return x + NONLINEARITIES[kind]()(value) * gate.sigmoid()

    same(lambda *inputs: gated_sum(kind, *inputs), plain, *inputs)
    x, h, weight, bias = (t.detach() for t in inputs)
    assert torch.autograd.gradcheck(lambda weight: gated_sum(kind, x, h, weight, bias), (inputs[2],))
    assert torch.autograd.gradcheck(lambda h: gated_sum(kind, x, h, weight, bias), (inputs[1],))


def test_kl_and_log_ratio_of_gaussians() -> None:
    torch.manual_seed(0)
    z, *parameters = (drawn(2, 3) for _ in range(5))

    def gaussians(*p: Tensor) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        return DiagonalGaussian(p[0], p[1]), DiagonalGaussian(p[2], p[3])

    def kl(*p: Tensor) -> Tensor:
        q, prior = gaussians(*p)
        return q.kl(prior)

    def torch_kl(*p: Tensor) -> Tensor:
        q, prior = (torch.distributions.Normal(g.mean, g.std) for g in gaussians(*p))
        return torch.distributions.kl_divergence(q, prior)

    def ratio(z: Tensor, *p: Tensor) -> Tensor:
        q, prior = gaussians(*p)
        return q.log_ratio(prior, z)

    def plain_ratio(z: Tensor, *p: Tensor) -> Tensor:
        q, prior = gaussians(*p)
        return q.log_prob(z) - prior.log_prob(z)

    same(kl, torch_kl, *parameters)
    same(ratio, plain_ratio, z, *parameters)
    q = DiagonalGaussian(*parameters[:2])
    assert torch.equal(q.kl(q), torch.zeros(2, 3, dtype=torch.float64))
    assert_close(q.kl(DiagonalGaussian(parameters[2][:1], parameters[3][:1])), kl(*parameters[:2], *(
        p[:1].expand(2, 3) for p in parameters[2:]
    )))  # fmt: skip


def kept(what: Callable[[], Tensor], *known: Tensor) -> int:
    """Elements kept for the backward pass beside ``known``."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in {t.data_ptr() for t in known}:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = what()
    assert y.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("kind", PLAIN)
def test_activation_and_convolution_keep_nothing_more(kind: str) -> None:
    x, weight = torch.randn(2, 8, 16, 16, requires_grad=True), torch.randn(8, 8, 1, 1, requires_grad=True)
    assert kept(lambda: activated_conv(kind, x, weight, None), x, weight) == 0
    assert kept(lambda: conv2d(PLAIN[kind](x), weight), x, weight) == x.numel()


def test_gated_sum_keeps_two_maps() -> None:
    x, h = (torch.randn(2, 8, 16, 16, requires_grad=True) for _ in range(2))
    weight, bias = torch.randn(16, 8, 1, 1, requires_grad=True), torch.randn(16, requires_grad=True)

    def plain() -> Tensor:
        value, gate = conv2d(h, weight, bias).chunk(2, dim=1)
        return x + torch.nn.functional.elu(value) * gate.sigmoid()

    assert kept(lambda: gated_sum("elu", x, h, weight, bias), x, h, weight) == 2 * x.numel()
    assert kept(plain, x, h, weight) == 4 * x.numel()


def test_half_precision_keeps_its_dtype_and_gives_full_gradients() -> None:
    torch.manual_seed(0)
    x, h = (torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_() for _ in range(2))
    weight, bias = torch.randn(16, 8, 1, 1, requires_grad=True), torch.randn(16, requires_grad=True)
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: gated_sum("elu", x, h, weight, bias),
        lambda x: activated_conv("silu", x, weight, bias),
    ]
    for ours in functions:
        with torch.autocast("cpu", torch.bfloat16):
            y = ours(x.bfloat16())
        assert y.dtype == torch.bfloat16
        assert_close(y.float(), ours(x).detach(), rtol=0.05, atol=0.1)
        gradients = torch.autograd.grad(y.float().sum(), (weight, bias, x))
        assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
