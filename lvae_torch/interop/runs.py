"""The run in files of another program, whichever it is."""

from collections.abc import Sequence
from pathlib import Path

from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop import efficient_vdvae_run, spatial_lvae_run, vdvae_run
from lvae_torch.interop.recognition import Found, Kind
from lvae_torch.interop.taken import Taken

PROGRAMS = {
    vdvae_run.PROGRAM: (
        *(Kind.VDVAE_RAW, Kind.VDVAE_AVERAGED, Kind.VDVAE_OPTIMIZER, Kind.VDVAE_LOG, Kind.VDVAE_HPARAMS),
    ),
    efficient_vdvae_run.PROGRAM: (Kind.EFFICIENT_TORCH, Kind.EFFICIENT_JAX, Kind.EFFICIENT_CFG),
    spatial_lvae_run.PROGRAM: (Kind.LADDER_WEIGHTS, Kind.LADDER_FLAGS),
}


def read_run(
    found: Sequence[Found], preset: str | None = None, cfg: Path | None = None, only_average: bool = False
) -> Taken:
    """Put the files of one program together.

    Args:
        preset: of openai/vdvae, instead of the one that fits.
        cfg: settings of Efficient-VDVAE, where none lie beside its checkpoint.
        only_average: leave raw weights and moments in the files, where there are averaged weights.
    Raises:
        DataError: if files are of several programs, or something is missing.
        CfgError: if an option is not for the program.
    """
    programs = [name for name, kinds in PROGRAMS.items() if any(file.kind in kinds for file in found)]
    if len(programs) != 1:
        told = "; ".join(file.line for file in found)
        raise DataError(f"files of several programs lie there ({told}); give those of one run.")
    (program,) = programs
    if preset is not None and program != vdvae_run.PROGRAM:
        raise CfgError(f"--preset {preset} is for {vdvae_run.PROGRAM}; these files are of {program}. Leave it out.")
    if cfg is not None and program != efficient_vdvae_run.PROGRAM:
        raise CfgError(f"--cfg {cfg} is for {efficient_vdvae_run.PROGRAM}; these files are of {program}. Leave it out.")
    if program == vdvae_run.PROGRAM:
        return vdvae_run.read(found, preset, only_average)
    if program == efficient_vdvae_run.PROGRAM:
        return efficient_vdvae_run.read(found, cfg, only_average)
    return spatial_lvae_run.read(found)
