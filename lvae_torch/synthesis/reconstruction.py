"""Reconstruction: the ELBO of a split, how like the images their reconstructions are, and pictures of pairs."""

import torch

from lvae_torch.metrics import psnr, ssim
from lvae_torch.models.sources import posterior_sample
from lvae_torch.objectives import bits_per_dim, elbo_terms
from lvae_torch.reporting.grids import pair_grid, save_png
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.singles import save_singles


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """NLL, KL per layer and ELBO in nats per image, bits/dim, SSIM and PSNR: means over the split."""
    n_layers = len(session.model.latent_shapes())
    totals = torch.zeros(n_layers + 4, dtype=torch.float64, device=session.processes.device)
    for _, indices, x in session.batches(session.options.batch_size, "reconstruction"):
        out = session.model(x, posterior_sample)
        terms, shown = elbo_terms(x, out), session.picture_of(out.likelihood)
        # An exact reconstruction has no finite PSNR; 100 dB stands for it in the mean.
        alike = torch.stack([ssim(x, shown), psnr(x, shown).clamp(max=100.0), torch.ones_like(terms.nll)], dim=1)
        totals += torch.cat([terms.nll[:, None], terms.kl, alike], dim=1).sum(dim=0, dtype=torch.float64)
        if session.options.save_singles:
            save_singles(session.out / "singles", indices.tolist(), shown)
    *sums, count = session.processes.sum_(totals).tolist()
    nll, *kl, mean_ssim, mean_psnr = (value / count for value in sums)
    if session.processes.is_main:
        _save_pairs(session)
    nelbo = nll + sum(kl)
    return {
        "n_images": int(count),
        "nelbo": nelbo,
        "bits_per_dim": bits_per_dim(nelbo, session.n_dims),
        "nll": nll,
        "kl": sum(kl),
        "kl_per_layer": kl,
        "ssim": mean_ssim,
        "psnr": mean_psnr,
    }


def _save_pairs(session: Session) -> None:
    indices = session.images.indices
    chosen = indices[:: max(1, len(indices) // session.options.pairs)][: session.options.pairs]
    x = session.x_at(chosen, "pairs")
    shown = session.picture_of(session.model(x, posterior_sample).likelihood)
    save_png(session.out / "reconstructions.png", pair_grid(x, shown, max(1, session.options.columns // 2)))
