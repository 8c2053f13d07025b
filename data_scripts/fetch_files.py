"""``python -m data_scripts.fetch_files BASE FOLDER NAME...``: files below an address into a folder, with resume."""

from collections.abc import Sequence

from lvae_torch.cli import main, path_option


def command(argv: Sequence[str]) -> None:
    """Fetch each file that is not there yet."""
    import argparse

    from data_scripts.download import fetch
    from data_scripts.upstream import Source

    parser = argparse.ArgumentParser(prog="python -m data_scripts.fetch_files", description=__doc__)
    parser.add_argument("base", help="an http(s) address, or a folder")
    parser.add_argument("folder", type=path_option, help="where the files are to lie")
    parser.add_argument("names", nargs="+", help="names of the files")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        found = fetch(Source(name), [arguments.base], arguments.folder)
        print(f"{found.path}: sha256 {found.sha256}")


if __name__ == "__main__":
    main(command)
