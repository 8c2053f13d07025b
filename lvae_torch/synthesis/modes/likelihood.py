"""Likelihood: the importance-weighted bound on log p(x) of each image, and its mean with standard error."""

import itertools

import numpy as np
import torch

from lvae_torch.elbo.bounds import bits_entry, iw_bound, n_passes, standard_error, weighted_pass
from lvae_torch.reporting.progress import Progress
from lvae_torch.synthesis.session import Session


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Compute the bound on -log p(x) with K samples: the mean over the split, and each image's value in the parts.

    An interrupted mode continues after its last whole part. The standard error is that of the mean over images.
    """
    options = session.options
    count = session.n_batches(options.batch_size)
    parts = session.parts(count, "iw_samples", "batch_size", "chunk")
    progress, weighted = Progress(), weighted_pass(session.model, is_graphed=session.is_graphed)
    for j, indices, x in session.batches(options.batch_size, "likelihood"):
        if not parts.is_done(j):
            passes, done = n_passes(len(x), options.iw_samples, options.chunk), itertools.count(1)

            def after_pass(j: int = j, passes: int = passes, done: "itertools.count[int]" = done) -> None:
                if session.processes.is_main:
                    progress(f"likelihood, passes of batch {j + 1} of {count}:", next(done), passes)

            told, labels = (options.iw_samples, options.chunk), session.labels_at(indices)
            bound = iw_bound(session.model, x, *told, after_pass=after_pass, labels=labels, weighted=weighted)
            parts.write(j, {"indices": indices, "log_p": bound.cpu().numpy()})
    session.processes.barrier()
    if not session.processes.is_main:
        return {}
    nats = -np.concatenate([parts.read(j)["log_p"] for j in range(count)])
    return {
        "n_images": len(nats),
        "iw_samples": options.iw_samples,
        "chunk": options.chunk,
        "nll_bound": float(nats.mean()),
        "standard_error": standard_error(nats),
        **bits_entry("bits_per_dim", float(nats.mean()), session.n_dims),
    }
