"""What every family checks of what it is given."""

from torch import Tensor

from lvae_torch.models.contract import Features


def check_images(x: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raises ValueError if x, (B, C, H, W), has another shape than the model was built for."""
    if tuple(x.shape[1:]) != image_shape:
        raise ValueError(f"images of shape {tuple(x.shape[1:])} given to a model built for {image_shape}.")


def batch_size(features: Features | None, n: int | None) -> int:
    """How many images a top-down pass is of: as many as were encoded, or ``n``.

    Raises:
        ValueError: if neither is given.
    """
    if features is not None:
        return features[0].shape[0]
    if n is None:
        raise ValueError("say how many images to generate: model(None, source, n=16).")
    return n
