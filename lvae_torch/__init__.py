"""Train, resume, evaluate and use hierarchical variational autoencoders.

    run = lvae_torch.load_run("egs/pretrained/spatial_lvae_mnist")      # a run's name or folder, or a bundle
    model = lvae_torch.build_model("vae", (1, 28, 28), levels=2)

See ``docs/python.md``.
"""

from typing import TYPE_CHECKING, Any

from lvae_torch.runs.version import VERSION

if TYPE_CHECKING:
    from lvae_torch.trained.loading import build_model, load_run
    from lvae_torch.trained.run import TrainedRun

__version__ = VERSION
__all__ = ["TrainedRun", "__version__", "build_model", "load_run"]


def __getattr__(name: str) -> Any:
    """Import these names only when they are used, so that ``--help`` does not wait for PyTorch."""
    if name in ("build_model", "load_run"):
        from lvae_torch.trained import loading

        return getattr(loading, name)
    if name == "TrainedRun":
        from lvae_torch.trained.run import TrainedRun

        return TrainedRun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
