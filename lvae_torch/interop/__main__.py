"""``python -m lvae_torch.interop efficient_vdvae --cfg FILE --checkpoint FILE --name NAME``."""

from lvae_torch.cli import main
from lvae_torch.importing import command

main(command)
