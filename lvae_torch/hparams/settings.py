"""All sections of a run together, and as text."""

from dataclasses import dataclass, fields

from lvae_torch.cfg.seal import sealed
from lvae_torch.cfg.section import Section
from lvae_torch.data.section import DataSection
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.models.section import ModelSection
from lvae_torch.runs.section import RunSection
from lvae_torch.synthesis.section import SynthesisSection
from lvae_torch.training.section import OptimizerSection, TrainSection


@dataclass(frozen=True)
class Settings:
    """A whole cfg: typed, complete, frozen."""

    run: RunSection
    data: DataSection
    model: ModelSection
    """The section of the model's family."""
    loss: LossSection
    optimizer: OptimizerSection
    train: TrainSection
    val: ValSection
    synthesis: SynthesisSection


COMMON: dict[str, type[Section]] = {
    "run": RunSection, "data": DataSection, "loss": LossSection, "optimizer": OptimizerSection,
    "train": TrainSection, "val": ValSection, "synthesis": SynthesisSection,
}  # fmt: skip
"""The sections that do not depend on the family."""
SECTIONS = tuple(field.name for field in fields(Settings))


def to_cfg(settings: Settings) -> str:
    """The resolved settings as a cfg that loads to the same settings."""
    blocks = []
    for name in SECTIONS:
        section = getattr(settings, name)
        lines = [f"{key} = {getattr(section, key)!r}" for key in type(section).model_fields]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def sealed_cfg(settings: Settings) -> str:
    """The same under its checksum: the copy that a run keeps."""
    return sealed(to_cfg(settings))
