"""``python -m lvae_torch.importing.models [NAME]``: the published checkpoints that ``lvae import`` takes."""

from collections.abc import Sequence

from lvae_torch.cli import main, new_parser
from lvae_torch.errors import CfgError
from lvae_torch.importing.published import Published, published_models

PARSER = new_parser("models")
PARSER.add_argument("name", nargs="?", help="tell all of one model")
HEAD = ("name", "dataset", "bits", "published", "size", "state")


def command(argv: Sequence[str]) -> None:
    """Print the list, or one model of it."""
    name = PARSER.parse_args(argv).name
    if name is not None and name not in published_models():
        raise CfgError(f"{name}: no published model of that name; `lvae models` lists them.")
    print(table() if name is None else described(published_models()[name]))


def table() -> str:
    """A line for each model."""
    rows = [HEAD, *(_row(model) for model in published_models().values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = "Numbers and addresses are the authors'; sizes follow from the number of weights. Tell all of one: NAME."
    return "\n".join([*lines, "", told])


def _row(model: Published) -> tuple[str, ...]:
    number = f"{model.published:g} {model.unit}"
    size = _size(model.bytes_of(model.files[0]))
    return model.name, model.dataset, str(model.bits), number, size, model.state


def described(model: Published) -> str:
    """Everything of one model, and how to import it."""
    lines = [
        f"{model.name}: {model.program}, family {model.family}, {model.parameters:,} weights",
        f"  dataset   {model.dataset}, {model.bits} bits",
        f"  published {model.published} {model.unit} (-ELBO)",
        *(f"  file      {model.base}/{file}  {_size(model.bytes_of(file))}".rstrip() for file in model.files),
        f"  state     {model.state}{': ' * bool(model.remark)}{model.remark}",
        f"  import    lvae import {model.name} --source FILE_or_FOLDER",
        f"            lvae import {model.name}    (downloads first, where the address answers)",
    ]
    return "\n".join(lines)


def _size(n_bytes: int | None) -> str:
    return "" if n_bytes is None else f"about {n_bytes / 1e6:,.0f} MB"


if __name__ == "__main__":
    main(command)
