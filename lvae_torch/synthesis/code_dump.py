"""Writes the codes of a whole dataset as a new dataset, on which a prior is trained like any other model."""

from collections.abc import Iterable
from dataclasses import replace
from math import prod

import numpy as np

from lvae_torch.data.dump import DESCRIPTION, Dump, Layout
from lvae_torch.data.images import Images
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError
from lvae_torch.models.sources import posterior_mean
from lvae_torch.synthesis.codes import CodeSource, Grid, code_grid
from lvae_torch.synthesis.identity import OWNER
from lvae_torch.synthesis.parts import Arrays, Parts
from lvae_torch.synthesis.session import Batch, Session

MOST_CODES = 2**16  # a dump stores codes in at most 16 bits


def check_code_dump(session: Session, source: CodeSource, dataset: str) -> tuple[Grid, int]:
    """(grid, number of codes) that ``write_code_dump`` will write.

    Raises:
        CfgError: if the model has no codes or too many, or a dump of that name holds images.
    """
    found = code_grid(session.model)
    if found is None:
        run = session.identity["run"]
        raise CfgError(f"[synthesis] codes_to = {dataset}: the latents of run {run} are no codes; leave it out.")
    if found[1] > MOST_CODES:
        raise CfgError(
            f"[synthesis] codes_to = {dataset}: {found[1]:,} codes, but a dump holds {MOST_CODES:,} at most."
        )
    if (source.dumps / dataset / DESCRIPTION).is_file():
        there = Dump.open(source.dumps, dataset)
        if "codes_of" not in there.provenance:
            raise CfgError(f"[synthesis] codes_to = {dataset}: {there.folder} holds images; choose a name of its own.")
        if (run := there.provenance["codes_of"].get("run")) != session.identity["run"]:
            raise CfgError(
                f"[synthesis] codes_to = {dataset}: {there.folder} holds codes of run {run}; choose a name of its own."
            )
    return found


def write_code_dump(session: Session, source: CodeSource, dataset: str) -> dict[str, object]:
    """Encode all ``source.splits`` into the dump ``dataset``: images (1, h, w) whose levels are the codes.

    Codes are first written in parts: an interrupted mode continues after the last whole part, and the dump appears
    only when it is whole.

    Raises:
        CfgError: if the model has no codes or too many, or a dump of that name holds images.
    """
    grid, n_codes = check_code_dump(session, source, dataset)
    encoded = {split: _encode(session, split, images) for split, images in source.splits.items()}
    session.processes.barrier()
    if session.processes.is_main:
        layout = Layout(grid, n_codes, "uint8" if n_codes <= 2**8 else "uint16")
        with DumpWriter(source.dumps, dataset, layout, _provenance(session)) as writer:
            for split, (parts, count) in encoded.items():
                codes = np.concatenate([parts.read(j)["codes"] for j in range(count)])
                writer.add(split, codes.astype(layout.dtype), source.labels[split])
    session.processes.barrier()
    return {"codes_to": str(source.dumps / dataset), "n_codes": n_codes}


def _encode(session: Session, split: str, images: Images) -> tuple[Parts, int]:
    """Write this rank's parts of a split below ``codes/<split>``; return the parts and their number over all ranks."""
    identity = {**session.identity, "split": split, "n_images": len(images.indices)}
    of_split = replace(session, out=session.out / "codes" / split, identity=identity, given_images=images)
    size = session.options.shard_size
    count = of_split.n_shards(size)
    parts = of_split.parts(count, "batch_size", "shard_size")
    for j, batches in of_split.shards(size):
        if not parts.is_done(j):
            parts.write(j, _codes(of_split, batches))
    return parts, count


def _codes(session: Session, batches: Iterable[Batch]) -> Arrays:
    """Codes (n, h, w, 1), in the axis order of dumps."""
    pieces = [session.model(x, posterior_mean).latents[0].z.movedim(1, -1).cpu().numpy() for _, x in batches]
    return {"codes": np.concatenate(pieces)}


def _provenance(session: Session) -> dict[str, object]:
    identity = session.identity
    return {
        "dimensions_of_images": prod(session.model.image_shape),  # whether or not their likelihood is in bits
        "source": f"codes of {identity['dataset']} (content {identity['content']}) by run {identity['run']}",
        "preprocessing": identity["preprocessing"],
        "codes_of": {key: identity[key] for key in OWNER},
    }
