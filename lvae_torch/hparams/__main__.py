"""``python -m lvae_torch.hparams``: print the reference of all settings."""

from lvae_torch.hparams.reference import reference

if __name__ == "__main__":
    print(reference(), end="")
