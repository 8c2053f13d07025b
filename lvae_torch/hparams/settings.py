"""All sections of a cfg together, and their text form."""

from dataclasses import dataclass, fields, replace

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
    """All settings of a run: typed, complete and frozen."""

    run: RunSection
    data: DataSection
    model: ModelSection
    """The section of the model's family."""
    loss: LossSection
    optimizer: OptimizerSection
    train: TrainSection
    val: ValSection
    synthesis: SynthesisSection

    @property
    def evaluated_on(self) -> dict[str, str]:
        """Weights and split of the evaluations in training, as they stand beside results."""
        return {"weights": "ema" if self.train.ema_decay else "raw", "split": self.data.val_split}

    @property
    def without_effect(self) -> list[str]:
        """What is set and does nothing, a sentence each."""
        told = [f"[{name}] {line}." for name in SECTIONS for line in getattr(self, name).without_effect()]
        if self.train.sync_batch_norm and not getattr(self.model, "batch_norm", False):
            told.append("[train] sync_batch_norm does nothing, for the model has no batch norm.")
        return told


COMMON: dict[str, type[Section]] = {
    "run": RunSection, "data": DataSection, "loss": LossSection, "optimizer": OptimizerSection,
    "train": TrainSection, "val": ValSection, "synthesis": SynthesisSection,
}  # fmt: skip
"""The sections that do not depend on the family."""
SECTIONS = tuple(field.name for field in fields(Settings))


def with_batch_sizes(settings: Settings) -> Settings:
    """The same with numbers in place of 0, for each process: the batch of training by its parts, or fewer.

    One process trains on as many at once; several, which divide the batch among them, train on fewer.
    """
    at_once = settings.train.batch_size // settings.train.accumulate
    val, synthesis = settings.val, settings.synthesis
    return replace(
        settings,
        val=val.model_copy(update={"batch_size": val.batch_size or min(at_once, 250)}),
        synthesis=synthesis.model_copy(update={"batch_size": synthesis.batch_size or min(at_once, 100)}),
    )


def to_cfg(settings: Settings) -> str:
    """The settings as cfg text; loading it gives the same settings."""
    blocks = []
    for name in SECTIONS:
        section = getattr(settings, name)
        lines = [f"{key} = {getattr(section, key)!r}" for key in type(section).model_fields]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def sealed_cfg(settings: Settings) -> str:
    """The same text below its checksum; a run keeps this copy."""
    return sealed(to_cfg(settings))
