"""Reconstruction: the ELBO of a split, the similarity of images and reconstructions, and pictures of pairs.

With ``keep_fraction``, only the most informative variates come from the posterior and the others from the prior; the
ELBO then counts the KL of the kept ones.
"""

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.order import spread
from lvae_torch.data.shapes import POINT
from lvae_torch.elbo.bounds import bits_entry, standard_error
from lvae_torch.elbo.passes import published_nll
from lvae_torch.models.contract import Source
from lvae_torch.synthesis.parts import Arrays, Parts
from lvae_torch.synthesis.session import Batch, Session
from lvae_torch.synthesis.showing import save_pairs
from lvae_torch.synthesis.similarity import psnr, ssim
from lvae_torch.synthesis.singles import SINGLES, TARGETS, save_singles
from lvae_torch.synthesis.variates import Kept, bits_per_element, kept_variates, variate_kl

ACTIVE_BITS = 1e-4  # per element; layers below count as inactive, as in Efficient-VDVAE
FINITE_PSNR = 100.0  # dB; replaces the infinite PSNR of an exact reconstruction
ALIKE = ("ssim", "ssim_zero_padded", "psnr")  # for images only, not for points or codes
OPTIONS = ("batch_size", "draw", "output_temperature", "save_singles", "save_targets")


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Compute means over the split: NLL, KL per layer and ELBO in nats per image, bits/dim, SSIM and PSNR.

    The parts keep the values of each image; an interrupted mode continues after its last whole part.
    """
    options, shapes = session.options, session.model.latent_shapes()
    kept = kept_variates(session)
    source = kept.source(shapes, session.processes.device)
    count = session.n_batches(options.batch_size)
    parts = session.parts(count, *OPTIONS, said={"kept": kept.channels})
    for b, batch in session.posterior_batches():
        if not parts.is_done(b):
            parts.write(b, _reconstruct(session, batch, source, kept))
    session.processes.barrier()
    if not session.processes.is_main:
        return {}
    _save_pairs(session, source)
    means = _means(parts, count)
    return {**_summary(session, means), **_pruning(session, kept, means)}


def _reconstruct(session: Session, batch: Batch, source: Source, kept: Kept) -> Arrays:
    """Numbers of each image, (b,) or (b, L); also saves single pictures if asked for."""
    indices, x = batch
    out = session.passed(x, indices, source)
    kl = [variate_kl(latent) for latent in out.latents]  # (b, Z) each
    masks = [torch.from_numpy(mask).to(x.device) for mask in kept.masks]
    shown = session.picture_of(out.likelihood, int(indices[0]))
    numbers, names = indices.tolist(), session.single_names
    if session.options.save_singles:
        save_singles(session.out / SINGLES, numbers, shown, names)
    if session.options.save_targets:
        save_singles(session.out / TARGETS, numbers, x, names)
    nll, published = -out.likelihood.log_prob(x), published_nll(x, out)
    values = {
        "nll": nll,
        "kl": _by_layer([layer * mask for layer, mask in zip(kl, masks, strict=True)], nll),
        "kl_unmasked": _by_layer(kl, nll),
        "ssim": ssim(x, shown),
        "ssim_zero_padded": ssim(x, shown, zero_padded=True),
        "psnr": psnr(x, shown).clamp(max=FINITE_PSNR),
        **({} if published is None else {"published_nll": published}),
    }
    return {"indices": indices, **{name: value.cpu().double().numpy() for name, value in values.items()}}


def _by_layer(kl: list[Tensor], like: Tensor) -> Tensor:
    """Sums over the variates of each layer, (b, L); L can be 0."""
    return torch.stack([layer.sum(dim=1) for layer in kl], dim=1) if kl else like.new_zeros(len(like), 0)


def _means(parts: Parts, count: int) -> dict[str, np.ndarray]:
    """Means over all images, added in a fixed order for any number of processes."""
    read = [parts.read(b) for b in range(count)]
    values = {name: np.concatenate([part[name] for part in read]) for name in read[0] if name != "indices"}
    nelbo, n = values["nll"] + values["kl"].sum(axis=1), len(values["nll"])
    means = {name: value.mean(axis=0) for name, value in values.items()}
    return {**means, "n_images": np.array(n), "standard_error": np.array(standard_error(nelbo))}


def _summary(session: Session, means: dict[str, np.ndarray]) -> dict[str, object]:
    nll, kl = float(means["nll"]), means["kl"].tolist()
    bits = bits_per_element(kl, session.model.latent_shapes())
    return {
        "n_images": int(means["n_images"]),
        "nelbo": nll + sum(kl),
        "standard_error": float(means["standard_error"]),
        **bits_entry("bits_per_dim", nll + sum(kl), session.n_dims),
        **_as_published(session, means, sum(kl)),
        "nll": nll,
        "kl": sum(kl),
        "kl_per_layer": kl,
        "bits_per_element": sum(bits),
        "bits_per_element_per_layer": bits,
        "active_layers": sum(layer >= ACTIVE_BITS for layer in bits),
        **{name: float(means[name]) for name in ALIKE if bits and session.model.image_shape != POINT},
    }


def _as_published(session: Session, means: dict[str, np.ndarray], kl: float) -> dict[str, object]:
    """The score with the approximations of the family's original program, where it has some."""
    if "published_nll" not in means:
        return {}
    nelbo = float(means["published_nll"]) + kl
    return {"nelbo_as_published": nelbo, **bits_entry("bits_per_dim_as_published", nelbo, session.n_dims)}


def _pruning(session: Session, kept: Kept, means: dict[str, np.ndarray]) -> dict[str, object]:
    """The number of kept variates, and the KL of all variates; empty without ``keep_fraction``."""
    if session.options.keep_fraction is None:
        return {}
    return {
        "keep_fraction": session.options.keep_fraction,
        "kept_per_layer": [len(channels) for channels in kept.channels],
        "kl_unmasked": float(means["kl_unmasked"].sum()),
        "kl_unmasked_per_layer": means["kl_unmasked"].tolist(),
    }


def _save_pairs(session: Session, source: Source) -> None:
    indices = session.images.indices
    chosen = indices[spread(len(indices), session.options.pairs)]
    pairs = []
    for piece in session.pieces(chosen):
        x = session.x_at(piece, "pairs", int(piece[0]))
        pairs.append((x, session.picture_of(session.passed(x, piece, source).likelihood)))
    x, shown = (torch.cat(images) for images in zip(*pairs, strict=True))
    save_pairs(session.out / "reconstructions.png", x, shown, max(1, session.options.columns // 2))
