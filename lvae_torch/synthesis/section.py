"""The section of inference: what ``python -m lvae_torch.synthesize`` does with a trained run."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from lvae_torch.cfg.section import Count, Fraction, Int, NonNegative, Positive, PositiveInt, Section, TupleOf, one_of
from lvae_torch.files import check_name
from lvae_torch.synthesis.modes import MODES

ModeName = Annotated[str, AfterValidator(one_of(MODES))]


def _setting(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Temperature = Annotated[
    NonNegative | tuple[Literal["linear"], NonNegative, NonNegative] | TupleOf[NonNegative], BeforeValidator(_setting)
]


class SynthesisSection(Section):
    """[synthesis]: what ``python -m lvae_torch.synthesize`` does with a trained run. May always be overridden."""

    mode: ModeName | TupleOf[ModeName] = "reconstruction"
    """One mode, or several in a list."""
    checkpoint: str = "last"
    """last (the best, of a run that was finished with [val] patience), best, good, or the number of a step."""
    use_ema: bool = True
    """Use the averaged weights, where the run has them."""
    split: str | None = None
    """Split to read; None for [data] val_split, or train_split in div_stats."""
    limit: Count | Fraction = 0
    """Read only N images, or this share of the split, spread evenly over it; 0 for all."""
    batch_size: PositiveInt = 100
    """Images per pass."""
    seed: Int = 0
    """Of all noise in this mode."""
    n_images: PositiveInt = 64
    """generation: how many."""
    columns: PositiveInt = 8
    """Columns of picture grids; layer_inspection and progressive draw as many rows."""
    temperature: Temperature = 1.0
    """Factor on prior stds where z is drawn from p: a number (0 for the mean), one per layer (top first), or
    ('linear', top, bottom)."""
    temperatures: TupleOf[Temperature] = ()
    """generation: several settings instead, as temperature takes them; each gets images of its own."""
    draw: Literal["mean", "sample", "mode"] = "mean"
    """What is shown of p(x|z)."""
    output_temperature: Positive = 1.0
    """draw = sample: of p(x|z)."""
    save_singles: bool = False
    """generation, reconstruction, decoding: write each image as a PNG of its own too."""
    save_targets: bool = False
    """reconstruction: write each original as a PNG of its own too."""
    keep_fraction: Fraction | None = None
    """reconstruction, encoding: keep this share of all variates (latent channels), by their KL in div_stats, and leave
    the others to the prior; None keeps all."""
    pairs: PositiveInt = 32
    """reconstruction: pairs in the picture."""
    iw_samples: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """likelihood: K."""
    chunk: PositiveInt = 500
    """likelihood: images times samples in one pass; bounds the memory."""
    shard_format: Literal["safetensors", "npz"] = "safetensors"
    """encoding: file format."""
    shard_size: PositiveInt = 1000
    """encoding, div_stats: images per file, in whole batches; an interrupted mode goes on after the last whole file."""
    shard_dtype: Literal["float32", "float16"] = "float32"
    """encoding: of latents and posteriors; float16 halves the files."""
    source: str | None = None
    """decoding: folder of encodings; None for this run's own."""
    codes_to: str | None = None
    """encoding, where latents are codes: write those of both splits as a dump of this name, to train a prior on."""
    prior_run: str | None = None
    """generation, where latents are codes: the run that draws them, trained on this one's; None for uniform codes."""

    @field_validator("codes_to", "prior_run")
    @classmethod
    def _safe(cls, name: str | None) -> str | None:
        return None if name is None else check_name(name, "it")

    @field_validator("mode", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _step(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that ``mode`` names."""
        return (self.mode,) if isinstance(self.mode, str) else self.mode

    def problems(self) -> Iterator[str]:
        if self.mode == ():
            yield "mode is an empty list; name at least one mode"
        if self.checkpoint not in ("last", "best", "good") and not self.checkpoint.isdecimal():
            yield f"checkpoint is {self.checkpoint!r}; use last, best, good, or the number of a step"
        if self.output_temperature != 1 and self.draw != "sample":
            yield f"output_temperature is of samples, but draw = {self.draw}; set draw = sample"
