"""ELU in pieces, held against PyTorch's in double precision."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import elu
from torch.testing import assert_close

from lvae_torch.models.elu import PIECE, Elu, elu_

SPECIAL = [0.0, -0.0, 1e-9, -1e-9, 1e-3, -1e-3, 5.0, -5.0, 90.0, -90.0, torch.inf, -torch.inf, torch.nan]
SHAPES = [(), (0,), (7,), (PIECE + 3,), (2, 5, 3, 4)]


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_pytorchs(shape: tuple[int, ...]) -> None:
    x = drawn(shape)
    exact = elu(x.double())
    assert_close(elu_(x).double(), exact, rtol=0, atol=1.2e-7)


def test_special_values() -> None:
    x = torch.tensor(SPECIAL)
    assert_close(elu_(x.clone()), elu(x), rtol=0, atol=1e-7, equal_nan=True)


def test_bfloat16_is_computed_in_single_precision() -> None:
    """Within a unit of the last place of the exact value: 8 bits."""
    x = torch.cat([drawn((1000,), torch.bfloat16), torch.linspace(-0.1, 0.1, 1000, dtype=torch.bfloat16)])
    assert_close(elu_(x.clone()).double(), elu(x.double()), rtol=2**-8, atol=1e-7)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last, "neither"])
def test_the_layer_and_its_gradient(inplace: bool, dtype: torch.dtype, layout: torch.memory_format | str) -> None:
    x = drawn((2, 5, 3, 4), dtype)
    x = x.transpose(1, 3)[:, :, ::2] if layout == "neither" else x.to(memory_format=layout)
    passed = []
    for layer in (Elu(inplace), nn.ELU()):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(leaf * 1.0)
        y.backward(torch.ones_like(y) * 0.3)
        assert y.stride() == (leaf * 1.0).stride()
        passed.append((y.detach(), leaf.grad))
    assert_close(*passed, rtol=0, atol=1.2e-7 if dtype == torch.float32 else 1e-15)


def test_only_in_place_the_input_is_changed() -> None:
    x = drawn((9,))
    before = x.clone()
    y = Elu()(x)
    assert torch.equal(x, before) and not torch.equal(y, before)
    assert Elu(inplace=True)(x) is x and torch.equal(x, y)
