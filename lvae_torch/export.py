"""``python -m lvae_torch.export RUN FOLDER``: write a trained run as a bundle, which loads without its run or data.

``--to hf://user/name`` puts it on the hub too.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lvae_torch.cli import add_overrides, add_runs, begin, main, new_parser, path_option

PARSER = new_parser("export")
PARSER.add_argument("run", help="a run's name or folder")
PARSER.add_argument("folder", type=path_option, nargs="?", help="folder to write, new or empty; or a .zip file")
PARSER.add_argument("--to", metavar="hf://USER/NAME[@REVISION]", help="upload it there; nothing is uploaded without")
PARSER.add_argument("--license", default="not stated", help="under which licence the weights may be used")
PARSER.add_argument(
    "--precision",
    choices=["float32", "bfloat16"],
    default="float32",
    help="of the weights in the file; bfloat16 rounds matrices and kernels and halves it (default: %(default)s)",
)
add_runs(PARSER)
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import NAME, check_name, make_folder
from lvae_torch.hparams import Settings, sealed_cfg
from lvae_torch.runs.bundle import Bundle
from lvae_torch.runs.bundle_zip import zip_bundle
from lvae_torch.runs.checkpoint import versions
from lvae_torch.runs.folder import RunFolder
from lvae_torch.trained.card import model_card
from lvae_torch.trained.hub import Address, upload
from lvae_torch.trained.loading import find_run, open_alone

LEFT_OUT = ("prior_run", "codes_to", "source", "extractor")
"""Keys of ``[synthesis]`` that name runs, dumps and files."""


def command(argv: Sequence[str]) -> None:
    """Write the bundle that the arguments describe."""
    options = PARSER.parse_args(argv)
    address = Address.of(options.to) if options.to else None
    if options.folder is None and address is None:
        raise CfgError("export: name a folder to write, or where to upload it: --to hf://user/name.")
    settings, where = find_run(options.run, options.overrides, options.runs)
    with tempfile.TemporaryDirectory() as place:
        target = options.folder or Path(place) / (address.name if address else "bundle")
        is_zip = target.suffix == ".zip"
        folder = Path(place) / target.stem if is_zip else target
        if is_zip and target.exists():
            raise DataError(f"{target}: there is something already; name a new file.")
        export(settings, where, folder, options.license, options.precision == "bfloat16")
        if is_zip:
            make_folder(target.resolve().parent)
            zip_bundle(folder, target)
        if options.folder is not None:
            print(f"{target}: written. Use it: lvae synthesize {target} --mode generation")
        if address is not None:
            print(f"{address}: uploaded ({upload(folder, address)}).")


def export(
    settings: Settings, where: Path, folder: Path, license_: str = "not stated", is_rounded: bool = False
) -> None:
    """Write the model of a run, with the weights that ``[synthesis]`` selects, as a bundle named after ``folder``.

    Args:
        is_rounded: whether the file holds the weights in bfloat16; whoever reads it computes in float32 as before.
    Raises:
        CfgError: if the folder's name is not a valid name of a run.
        DataError: if the checkpoint does not exist, or the folder is not empty.
    """
    name = check_name(folder.resolve().name, "the bundle")
    run = open_alone(settings, where, "cpu")
    # The weights already hold the batch norm statistics of evaluation. What only this machine has is left out: paths,
    # its device, other runs.
    portable = replace(
        settings,
        run=settings.run.model_copy(update={"name": name, "runs": "runs", "device": "auto"}),
        data=settings.data.model_copy(update={"dumps": "dataset_dumps"}),
        val=settings.val.model_copy(update={"batch_norm": "running"}),
        synthesis=settings.synthesis.model_copy(
            update={"checkpoint": "last", "use_ema": True, **dict.fromkeys(LEFT_OUT)}
        ),
    )
    bundle = Bundle(run.model.state_dict(), run.step, run.is_averaged, run.trained_on, versions())
    place = where.resolve()  # the folder may have been given as "."
    results = RunFolder(place.parent, place.name) if NAME.fullmatch(place.name) else None
    card = model_card(run, name, license_, results, is_rounded)
    (bundle.rounded() if is_rounded else bundle).write(folder, sealed_cfg(portable), card)


if __name__ == "__main__":
    main(command)
