"""Class-conditional models, held against unconditional ones that have the class folded into their own weights."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import small
import torch
from steps import train_step
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.elbo.bounds import elbo_terms, iw_bound, log_weight
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model, of_classes
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.sources import given_noise, posterior_mean, posterior_sample, prior_mean, prior_sample

K, B = 3, 6
X = small.images(B)
Y = torch.tensor([0, 1, 2, 2, 1, 0])
MAKERS: dict[str, Callable[..., Any]] = {"spatial_lvae": small.model, "efficient_vdvae": small.very_deep}
EVERY = [(family, where) for family in MAKERS for where in ("top", "every_layer")]
every = pytest.mark.parametrize(("family", "where"), EVERY)


def conditional(family: str, where: str, **section: Any) -> Any:
    """The same weights as ``MAKERS[family]()``, and embeddings that are not zero."""
    model = MAKERS[family](n_classes=K, class_embedding=where, **section)
    model.load_state_dict(MAKERS[family](**section).state_dict(), strict=False)
    return model


def embeddings(model: Model) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if "class_" in name}


def noise(model: Model, n: int = B) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(n, *shape) for shape in model.latent_shapes()]


def parts(model: Model, x: Tensor | None, labels: Tensor | None, eps: list[Tensor]) -> list[Tensor]:
    """All that a pass gives, for comparisons."""
    out = model(x, of_classes(given_noise(eps), labels), n=len(eps[0]))
    return [out.likelihood.mean(), *(latent.z for latent in out.latents), *(z.prior.mean for z in out.latents)]


@every
def test_an_embedding_of_zero_is_the_unconditional_model_to_the_bit(family: str, where: str) -> None:
    plain, model = MAKERS[family](), conditional(family, where)
    for weight in embeddings(model).values():
        torch.nn.init.zeros_(weight)
    gradients = []
    for one, labels in ((plain, None), (model, Y)):
        torch.manual_seed(3)
        terms = elbo_terms(X, one(X, of_classes(posterior_sample, labels)))
        terms.nelbo.mean().backward()
        gradients.append((terms.nelbo, {n: p.grad for n, p in one.named_parameters() if "class_" not in n}))
    assert torch.equal(gradients[0][0], gradients[1][0])
    for name, gradient in gradients[0][1].items():
        assert_close(gradient, gradients[1][1][name], rtol=1e-5, atol=1e-7)  # kernels add up in another order
    assert all(weight.grad is not None and weight.grad.any() for weight in embeddings(model).values())


@every
def test_a_new_model_is_the_unconditional_one(family: str, where: str) -> None:
    """No random number is drawn for the classes, and the embeddings begin at zero."""
    states = []
    for section, n_classes in (({}, 0), ({"class_embedding": where}, K)):
        torch.manual_seed(0)
        states.append(fresh(family, section, n_classes))
    plain, told = states
    assert all(torch.equal(value, told[name]) for name, value in plain.items())
    new = told.keys() - plain.keys()
    assert new and not any(told[name].any() for name in new)


def fresh(family: str, section: dict[str, Any], n_classes: int) -> dict[str, Tensor]:
    sizes: dict[str, dict[str, Any]] = {
        "spatial_lvae": {"z_channels": (2, 3), "downsample": (1, 1), "n_filters": 4, "blocks_per_layer": 1},
        "efficient_vdvae": {"scales": (1, 2), "bottom_up": ((1,), (1,)), "top_down": ((1,), (2,)), "widths": 4,
                            "kernels": 3, "likelihood": "bernoulli"},
    }  # fmt: skip
    model = FAMILIES[family](**sizes[family], **section).build((1, 8, 8), 2, n_classes)
    return dict(model.state_dict())


@every
def test_images_that_change_places_with_their_labels_change_places(family: str, where: str) -> None:
    model, order = conditional(family, where).eval(), torch.tensor([3, 0, 5, 1, 4, 2])
    eps = noise(model)
    for x in (X, None):
        before = parts(model, x, Y, eps)
        after = parts(model, None if x is None else x[order], Y[order], [e[order] for e in eps])
        for a, b in zip(before, after, strict=True):
            assert_close(a[order], b, rtol=1e-5, atol=1e-6)
    told_otherwise = parts(model, X, (Y + 1) % K, eps)
    assert not any(torch.allclose(a, b) for a, b in zip(parts(model, X, Y, eps)[:1], told_otherwise[:1], strict=True))


@pytest.mark.parametrize("k", range(K))
def test_a_class_at_the_top_of_a_very_deep_vae_is_another_top_map(k: int) -> None:
    """y = top_h + E[k] everywhere: the unconditional model with that map is the same model."""
    model, folded = conditional("efficient_vdvae", "top").eval(), small.very_deep().eval()
    with torch.no_grad():
        folded.top_h += model.down[0][0].class_embedding.weight[k][:, None, None]
    labels, eps = torch.full((B,), k), noise(model)
    for x in (X, None):
        for a, b in zip(parts(model, x, labels, eps), parts(folded, x, None, eps), strict=True):
            assert_close(a, b)
    assert_close(
        iw_bound(model, X, 4, chunk=8, source=posterior_mean, labels=labels),
        iw_bound(folded, X, 4, chunk=8, source=posterior_mean),
    )


@pytest.mark.parametrize("k", range(K))
def test_a_class_at_the_top_of_a_spatial_lvae_is_another_prior_and_another_bias(k: int) -> None:
    model, folded = conditional("spatial_lvae", "top").eval(), small.model().eval()
    rung = model.rungs[0]
    with torch.no_grad():
        folded.rungs[0].top_prior += rung.class_prior.weight[k][:, None, None]
        folded.rungs[0].z_proj.bias += rung.class_embedding.weight[k]
    eps = noise(model)
    for a, b in zip(parts(model, None, torch.full((B,), k), eps), parts(folded, None, None, eps), strict=True):
        assert_close(a, b)


def test_a_standard_normal_top_prior_stays_one() -> None:
    model = conditional("spatial_lvae", "every_layer", learn_top_prior=False)
    assert [name for name in embeddings(model) if "class_prior" in name] == []
    prior = model(None, of_classes(prior_mean, Y), n=B).latents[0].prior
    assert_close(prior.mean, model.rungs[0].top_prior[:, :3].expand_as(prior.mean))


@every
def test_the_bound_of_a_batch_is_that_of_each_image_with_its_class(family: str, where: str) -> None:
    """For any number of images in a pass; with the mean of q in place of draws all weights of an image are equal."""
    model = conditional(family, where).eval()
    alone = [log_weight(X[i : i + 1], model(X[i : i + 1], of_classes(posterior_mean, Y[i : i + 1]))) for i in range(B)]
    for chunk in (1, 4, 25):
        bound = iw_bound(model, X, 5, chunk=chunk, source=posterior_mean, labels=Y)
        assert_close(bound, torch.cat(alone).double(), rtol=1e-5, atol=1e-4)


@every
def test_rematerialized_blocks_give_the_same(family: str, where: str) -> None:
    gradients = []
    for rematerialized in (False, True):
        model = conditional(family, where).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        elbo_terms(X, model(X, of_classes(posterior_sample, Y))).nelbo.mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("family", MAKERS)
def test_labels_that_are_missing_or_wrong_are_refused(family: str) -> None:
    model = conditional(family, "top")
    with pytest.raises(ValueError, match="conditional on 3 classes needs labels"):
        model(X, posterior_sample)
    with pytest.raises(ValueError, match=r"labels of shape \(5,\) for 6 images"):
        model(X, of_classes(posterior_sample, Y[:5]))
    with pytest.raises(ValueError, match="not class-conditional; leave them out"):
        MAKERS[family]()(X, of_classes(posterior_sample, Y))
    with pytest.raises(CfgError, match="not known how many classes"):
        MAKERS[family](class_embedding="top")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in MAKERS])
def test_other_families_have_no_such_key(family: str) -> None:
    assert "class_embedding" not in FAMILIES[family].model_fields


def halves(y: Tensor) -> Tensor:
    """Images that their class determines: the left half, the right half, the upper half."""
    x = torch.zeros(len(y), 1, 8, 8)
    x[y == 0, :, :, :4] = x[y == 1, :, :, 4:] = x[y == 2, :, :4] = 1
    return x


@pytest.mark.parametrize(
    ("family", "where", "steps"),
    [("spatial_lvae", "top", 120), pytest.param("efficient_vdvae", "every_layer", 240, marks=pytest.mark.slow)],
)
def test_where_the_class_determines_the_image_samples_are_that_image(family: str, where: str, steps: int) -> None:
    """And latents need say nothing: no unconditional model of three images, equally often, can be below log 3 nats."""
    torch.manual_seed(0)
    model = conditional(family, where, **({"batch_norm": False} if family == "spatial_lvae" else {})).train()
    step = train_step(model)
    step.learning_rate = lambda k: 0.02
    for k in range(steps):
        y = torch.randint(0, K, (16,))
        step(halves(y), k, y)
    model.eval()
    y = torch.arange(30) % K
    with torch.no_grad():
        samples = model(None, of_classes(prior_sample([1.0] * len(model.latent_shapes())), y), n=30).likelihood.mean()
        nelbo = elbo_terms(halves(y), model(halves(y), of_classes(posterior_sample, y))).nelbo.mean()
    distances = (samples[:, None] - halves(torch.arange(K))).abs().flatten(2).sum(dim=2)
    assert torch.equal(distances.argmin(dim=1), y)
    assert nelbo < math.log(3) / 2
