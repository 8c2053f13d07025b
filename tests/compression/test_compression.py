"""Bits-back coding: every image comes back, at the rate that -ELBO promises."""

import io
import math

import numpy as np
import pytest
import torch
from compression_cases import CASES, as_bits, as_x, chained, codec, filled_stack, unchained
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae_torch.compression.chain import Chain
from lvae_torch.compression.codec import ExhaustedError
from lvae_torch.compression.pixels import proper
from lvae_torch.compression.stack import Stack, Words, bits, gaussians, uniform
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.models.contract import Output
from lvae_torch.models.sources import posterior_sample

LATENT = [name for name in CASES if "PixelCNN" not in name]


@pytest.mark.parametrize("name", CASES)
def test_every_image_comes_back(name: str) -> None:
    case = CASES[name]
    levels = case.levels(23)
    code, bits_back = codec(case.model(), case, levels)
    chain = Chain(code, case.shape, batch=5)
    words, _, _ = chained(chain, levels, min(bits_back, 300))  # so that not all are coded without the model
    assert np.array_equal(unchained(chain, words, len(levels)), levels)


@pytest.mark.parametrize("name", CASES)
def test_decoding_gives_every_borrowed_bit_back(name: str) -> None:
    case = CASES[name]
    levels = case.levels(6)
    code, _ = codec(case.model(), case, levels)
    stack, untouched = filled_stack(20_000), filled_stack(20_000)
    code.encode(levels, stack, seed=3)
    assert np.array_equal(code.decode(len(levels), stack, seed=3), levels)
    for each in (stack, untouched):
        each.settle()
    assert stack._below.file.getvalue() == untouched._below.file.getvalue()  # type: ignore[attr-defined]


QUICK = ["spatial bernoulli", "ladder", "VAE", "VLAE", "VQ-VAE"]
"""Cheap cases; a hierarchical VAE of random weights pays less than -ELBO: no latent costs more than 24 bits."""
OTHERS = [name for name in CASES if name not in (*QUICK, "hierarchical VAE")]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_rate_is_the_negative_elbo(name: str) -> None:
    """Of the same images; a model of random weights is no easier to code with than a trained one."""
    case = CASES[name]
    model, levels = case.model(), case.levels(400)
    code, _ = codec(model, case, levels[:32])
    rates = []
    for again in range(4):  # one coding of 400 images is within half a percent only
        stack = filled_stack(60_000)
        before = stack.n_bits
        for first in range(0, len(levels), 50):
            code.encode(levels[first : first + 50], stack, seed=first + 1000 * again)
        rates.append((stack.n_bits - before) / len(levels))
    x = as_x(levels, case.n_levels)
    torch.manual_seed(1)
    with torch.no_grad():
        outs = [model(x, posterior_sample) for _ in range(10)]
        terms = [elbo_terms(x, Output(proper(out.likelihood), out.latents)).nelbo.mean() for out in outs]
    assert np.mean(rates) == pytest.approx(as_bits(float(torch.stack(terms).mean())), rel=0.01)


@pytest.mark.parametrize("name", ["spatial bernoulli", "very deep bernoulli", "ladder", "hierarchical VAE", "VLAE"])
def test_popped_latents_follow_the_posterior(name: str) -> None:
    """Popped integers, standardised by the posterior, are normal: their distribution function is uniform."""
    case = CASES[name]
    levels = case.levels(100)
    code, _ = codec(case.model(), case, levels)
    stack = filled_stack(100_000)
    levels_tensor = torch.from_numpy(levels)
    ranks: list[np.ndarray] = []

    def coder(symbols, known):  # type: ignore[no-untyped-def]
        popped = stack.pop(symbols)
        mean, std = symbols.params
        jitter = np.random.default_rng(0).random(popped.shape) - 0.5  # within the bin, so that no bin stands out
        ranks.append(torch.special.ndtr(torch.from_numpy((popped + jitter - mean) / std)).numpy())
        return popped

    with torch.no_grad():
        code._inferred(levels_tensor, coder, code._unknown)
    found = np.sort(np.concatenate(ranks))
    wanted = (np.arange(len(found)) + 0.5) / len(found)
    assert np.abs(found - wanted).max() < 1.95 / math.sqrt(len(found)) + 0.02  # Kolmogorov-Smirnov, and bins


def test_the_first_batch_needs_bits() -> None:
    case = CASES["very deep bernoulli"]
    levels = case.levels(4)
    code, _ = codec(case.model(), case, levels)
    stack = filled_stack(10)
    before = stack.n_bits
    with pytest.raises(ExhaustedError):
        code.encode(levels, stack, seed=0)
    assert stack.n_bits == before


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_images_are_coded_plainly(n: int) -> None:
    case = CASES["very deep bernoulli"]
    levels = case.levels(n)
    code, bits_back = codec(case.model(), case, levels)
    chain = Chain(code, case.shape, batch=4)
    words, _, n_bits = chained(chain, levels, bits_back)
    assert np.array_equal(unchained(chain, words, n), levels)
    assert chain.account.plain_images == n
    assert n_bits < n * 64 * 1.5 + 300  # a bit a pixel, deflate's own, and sizes


def test_a_chain_that_is_told_too_little_still_works() -> None:
    """Where posteriors take more than expected, batches shrink until the stack can pay."""
    case = CASES["very deep bernoulli"]
    levels = case.levels(40)
    code, bits_back = codec(case.model(), case, levels)
    chain = Chain(code, case.shape, batch=16)
    words, _, _ = chained(chain, levels, bits_back / 10)
    assert np.array_equal(unchained(chain, words, len(levels)), levels)


def test_the_stack_spills_and_takes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that keeps next to nothing in memory holds the same bits as one that keeps all."""
    from lvae_torch.compression import stack as room

    case = CASES["spatial logistic"]
    levels = case.levels(60)
    code, bits_back = codec(case.model(), case, levels)
    whole = chained(Chain(code, case.shape, batch=7), levels, bits_back)
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 40)
    monkeypatch.setattr(room, "KEPT", 20)
    spilled = chained(Chain(code, case.shape, batch=7), levels, bits_back)
    assert spilled == whole
    assert np.array_equal(unchained(Chain(code, case.shape, batch=7), spilled[0], 60), levels)


def test_stirring_twice_changes_nothing() -> None:
    for n_words in (0, 5, 400, 10_000):
        stack, untouched = filled_stack(500), filled_stack(500)
        stack.stir(n_words, seed=4)
        stack.stir(n_words, seed=4)
        for each in (stack, untouched):
            each.settle()
        assert stack._below.file.getvalue() == untouched._below.file.getvalue()  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-1e300, 1e300), st.floats(0, 1e300), st.integers(-500, 500)), min_size=1, max_size=20),
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20),
    st.integers(2, 2**24 - 1),
)
def test_symbols_of_any_parameters_come_back(
    normal: list[tuple[float, float, int]], coins: list[tuple[float, bool]], size: int
) -> None:
    stack = Stack(Words(io.BytesIO()), spills=True)
    means, stds, integers = (np.array(column, dtype=np.float64) for column in zip(*normal, strict=True))
    p, values = (np.array(column, dtype=np.float64) for column in zip(*coins, strict=True))
    pushed = [
        (gaussians(means, stds, 500), integers.astype(np.int32)),
        (bits(p), values.astype(np.int32)),
        (uniform(size, 2), np.array([0, size - 1], np.int32)),
    ]
    for symbols, known in pushed:
        stack.push(symbols, known)
    for symbols, known in reversed(pushed):
        assert np.array_equal(stack.pop(symbols), known)
    assert stack.is_empty


def test_priors_are_the_same_with_and_without_x() -> None:
    """Not needed by the coder, which runs both passes in both directions; but two passes must not tell two stories."""
    for name in LATENT:
        case = CASES[name]
        model, x = case.model(), as_x(case.levels(5), case.n_levels)
        with torch.no_grad():
            seen = model.decode(model.encode(x), posterior_sample)
            drawn = [latent.z for latent in seen.latents]
            blind = model.decode(None, lambda i, prior, posterior: drawn[i], 5)  # noqa: B023
        for one, other in zip(seen.latents, blind.latents, strict=True):
            assert torch.equal(one.prior.mean, other.prior.mean), name


def test_batches_of_any_order_have_one_digest() -> None:
    case = CASES["spatial bernoulli"]
    levels = case.levels(30)
    code, bits_back = codec(case.model(), case, levels)
    _, digest, _ = chained(Chain(code, case.shape, batch=8), levels, bits_back)
    changed = levels.copy()
    changed[17, 0, 3, 4] ^= 1
    _, other, _ = chained(Chain(code, case.shape, batch=8), changed, bits_back)
    assert digest != other
    swapped = levels[::-1].copy()
    assert chained(Chain(code, case.shape, batch=8), swapped, bits_back)[1] != digest


@pytest.mark.parametrize("name", ["spatial mixture", "very deep 8 bits"])
def test_the_layout_of_images_in_memory_changes_nothing(name: str) -> None:
    """A transposed array would take other convolutions, with other last digits, than the one that comes back."""
    case = CASES[name]
    levels = case.levels(3)
    code, _ = codec(case.model(), case, levels)
    for given_levels in (levels, levels[:1]):
        transposed = np.ascontiguousarray(given_levels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        stacks = [filled_stack(5000), filled_stack(5000)]
        for stack, layout in zip(stacks, (given_levels, transposed), strict=True):
            code.encode(layout, stack, seed=0)
            stack.settle()
        assert stacks[0]._below.file.getvalue() == stacks[1]._below.file.getvalue()  # type: ignore[attr-defined]
