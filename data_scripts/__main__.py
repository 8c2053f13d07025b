"""``python -m data_scripts <dataset> [--dumps DIR] [--mirror URL_or_DIR] [--source DIR]``: make a dump.

Little is imported here: processes that only decode pictures import this module too.
"""

from collections.abc import Sequence


def command(argv: Sequence[str]) -> None:
    """Make or verify the dump that the arguments ask for, or list the datasets."""
    from data_scripts import commands

    commands.command(argv)


if __name__ == "__main__":
    from lvae_torch.cli import main

    main(command)
