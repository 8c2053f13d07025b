"""Feature extractors for measures of sample quality: the published Inception, or any network as a TorchScript file."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae_torch.distributed.place import pytorchs_own_products
from lvae_torch.errors import CfgError, DataError, NumericalError
from lvae_torch.files import sha256_of

PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = "95.6 MB"
ORIGIN = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{PUBLISHED}"


@dataclass(frozen=True)
class Extractor:
    """A network from pixels, uint8 (B, 3, H, W), to features and class logits."""

    network: Callable[[Tensor], Any]
    name: str
    sha256: str
    """Of its file."""
    is_inception: bool
    """Whether it is the one by which FID, KID and the Inception score are defined."""

    @property
    def resize(self) -> str:
        """How images get the size that the network takes."""
        own = "bilinear to 299x299 as TensorFlow 1 does it, inside the extractor"
        return own if self.is_inception else "none but what the extractor does itself"

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and logits (B, K), float32; a network that gives only features has them for logits too.

        They are kept for all runs, so they do not depend on a run's ``[train] tf32``.

        Raises:
            DataError: if the network does not take such pixels, or gives something else.
            NumericalError: if a feature is not finite.
        """
        try:
            with pytorchs_own_products():
                given = self.network(pixels)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            last = str(error).strip().splitlines()[-1]
            raise DataError(
                f"{self.name}: does not take pixels as uint8 {tuple(pixels.shape)}, 0 to 255 ({last}). Let the network "
                "convert them itself, and script it again."
            ) from error
        features, logits = given if isinstance(given, tuple | list) and len(given) == 2 else (given, given)
        for values in (features, logits):
            if not isinstance(values, Tensor) or values.ndim < 2 or len(values) != len(pixels):
                raise DataError(
                    f"{self.name}: gives {_told(given)} for {len(pixels)} images; needs features (B, F), or a pair of "
                    "features and class logits (B, K)."
                )
        features, logits = features.flatten(1).float(), logits.flatten(1).float()
        return features, logits


def check_finite(features: Any, name: str) -> None:
    """
    Raises:
        NumericalError: if a feature is not finite.
    """
    if not torch.isfinite(torch.as_tensor(features)).all():
        raise NumericalError(f"{name}: features are not finite; the pictures or the extractor are broken.")


def check_library() -> None:
    """
    Raises:
        CfgError: if the library for these measures is missing.
    """
    if find_spec("torch_fidelity") is None:
        raise CfgError("sample_quality needs the package torch-fidelity: pip install 'lvae_torch[metrics]'.")


def load_extractor(file: str | None, device: torch.device) -> Extractor:
    """Load ``[synthesis] extractor``, or the published weights from the library's cache. Nothing is downloaded.

    Raises:
        DataError: naming file, size and origin of the published weights, if they are missing or others.
    """
    path = Path(file) if file else Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. FID needs the weights of Inception, {PUBLISHED} ({SIZE}, sha256 {SHA256}), from "
            f"{ORIGIN}. Put them there, or name the file: --set synthesis.extractor=FILE. Any TorchScript file can be "
            "an extractor too; what it measures is not called FID."
        )
    found = sha256_of(path)
    if found == SHA256:
        return Extractor(_inception(path, device), PUBLISHED, found, is_inception=True)
    if path.name == PUBLISHED or path.suffix == ".pth":
        raise DataError(
            f"{path}: not the published weights of Inception (sha256 {found}, not {SHA256}). Get {PUBLISHED} ({SIZE}) "
            f"again from {ORIGIN}."
        )
    return Extractor(_script(path, device), path.name, found, is_inception=False)


def _inception(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The library unpickles the file, which is safe here alone: its checksum is the published one.
    network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path))
    return network.to(device).eval()


def _script(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is being retired; its files are there
            return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: neither the published weights of Inception ({PUBLISHED}, {SIZE}, from {ORIGIN}) nor a "
            f"TorchScript file ({str(error).strip().splitlines()[0]})."
        ) from error


def _told(given: Any) -> str:
    if isinstance(given, Tensor):
        return f"a tensor {tuple(given.shape)}"
    return f"{len(given)} values" if isinstance(given, tuple | list | dict) else type(given).__name__
