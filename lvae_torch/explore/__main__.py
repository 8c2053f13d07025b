"""``python -m lvae_torch.explore RUN``: look at a trained run in the browser."""

from collections.abc import Sequence
from pathlib import Path

from lvae_torch.cli import add_overrides, add_runs, begin, main, new_parser

PARSER = new_parser("explore")
PARSER.add_argument("run", help="a run's name or folder, a bundle, or a checkpoint")
add_runs(PARSER)
PARSER.add_argument("--port", type=int, default=8765, help="another one is taken if it is in use (default: 8765)")
PARSER.add_argument("--no-browser", action="store_true", help="open no browser; the address is printed")
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.distributed.place import choose_device
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError
from lvae_torch.explore.stage import Stage
from lvae_torch.trained.loading import find_run, open_run, with_prior
from lvae_torch.trained.run import TrainedRun


def command(argv: Sequence[str]) -> None:
    """Serve the page until Ctrl-C."""
    options = PARSER.parse_args(argv)
    if not 0 <= options.port < 2**16:
        raise CfgError(f"--port is {options.port}; use a number from 1024 to 65535, or 0 for any that is free.")
    try:
        from lvae_torch.explore.serving import serve
    except ImportError as error:
        raise CfgError(f"explore needs {error.name}: pip install 'lvae_torch[explore]'") from error
    run = explored(options.run, options.overrides, options.runs)
    serve(Stage(run, opening(run, options.run, options.overrides, options.runs)), options.port, not options.no_browser)


def explored(name: str, overrides: Sequence[str], runs: str | Path) -> TrainedRun:
    """The run that the arguments name, with the prior of its codes.

    Raises:
        CfgError: if it has no latents to look at.
    """
    settings, where = find_run(name, overrides, runs)
    processes = Processes(0, 1, choose_device(settings.run.device))
    run = open_run(settings, where, processes)
    if not run.latent_shapes:
        raise CfgError(
            f"{run.name}: a {settings.model.family} has no latents to look at. A prior of codes is explored with the "
            f"run whose codes it models: lvae explore VQVAE --set synthesis.prior_run={run.name}"
        )
    return with_prior(run, processes)


def opening(run: TrainedRun, name: str, overrides: Sequence[str], runs: str | Path) -> str:
    """The Python expression that opens the same run."""
    said = [repr(name), f'device="{run.device.type}"']
    if str(runs) != "runs":
        said.append(f"runs={str(runs)!r}")
    if settings := [entry for entry in overrides if not entry.strip().startswith("run.device")]:
        said.append(f"settings={settings!r}")
    return f"lvae_torch.load_run({', '.join(said)})"


if __name__ == "__main__":
    main(command)
