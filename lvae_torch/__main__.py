"""``lvae COMMAND ...`` or ``python -m lvae_torch COMMAND ...``: the same as ``python -m lvae_torch.COMMAND ...``."""

import runpy
import sys

from lvae_torch.cli import COMMANDS, module_of
from lvae_torch.errors import closest
from lvae_torch.runs.version import VERSION


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  lvae {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join([f"lvae_torch {VERSION}: train, evaluate and use hierarchical VAEs.\n", *lines, "",
                      "lvae COMMAND --help tells the options of each."])  # fmt: skip


def lvae() -> None:
    """Run the command named by the first argument, in this process."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(usage())
    elif name == "--version":
        print(VERSION)
    elif name not in COMMANDS:
        guess = f" Did you mean {meant!r}?" if (meant := closest(name, COMMANDS)) else ""
        print(f"lvae: there is no command {name!r}.{guess}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [f"lvae {name}", *rest]
        runpy.run_module(module_of(name), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    lvae()
