"""The [synthesis] section."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from lvae_torch.cfg.section import (
    Count,
    CountOrShare,
    Fraction,
    Int,
    NonNegative,
    PathText,
    Positive,
    PositiveInt,
    Section,
    TupleOf,
    one_of,
)
from lvae_torch.files import check_name
from lvae_torch.synthesis.modes import MODES

ModeName = Annotated[str, AfterValidator(one_of(MODES))]


def _setting(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Temperature = Annotated[
    NonNegative | tuple[Literal["linear"], NonNegative, NonNegative] | TupleOf[NonNegative], BeforeValidator(_setting)
]


class SynthesisSection(Section):
    """[synthesis]: options of ``lvae synthesize``; they can always be overridden."""

    mode: ModeName | TupleOf[ModeName] = "reconstruction"
    """One mode, or several in a list."""
    checkpoint: str = "last"
    """last (the best one if the run finished with [val] patience), best, good, or the number of a step."""
    use_ema: bool = True
    """Use the averaged weights, if the run has them."""
    split: str | None = None
    """Split to read; None uses [data] val_split, or train_split in div_stats and sample_quality."""
    limit: CountOrShare = 0
    """Read only N images, or this fraction of the split, spread evenly; 0 and 1.0 read all, 1 reads one image."""
    batch_size: Count = 0
    """Images in one pass; 0 uses [train] batch_size / accumulate, up to 100."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks in half precision: faster on GPUs and on CPUs with AMX or AVX512_BF16, slower on
    others; the numbers differ by about 0.1 nats, so those that are reported should be float32's."""
    seed: Int = 0
    """Seed of all noise in the mode."""
    n_images: Count = 0
    """generation: number of images; 0 draws 64, or of a class-conditional model a row of columns for each class."""
    classes: TupleOf[Count | str] = ()
    """generation, layer_inspection, analysis: classes of a class-conditional model to draw, by number or name, a row
    of columns each in turn; an empty list takes all."""
    columns: PositiveInt = 8
    """Columns of picture grids, and rows in layer_inspection and progressive."""
    temperature: Temperature = 1.0
    """Factor on the stds of the prior: a number (0 gives the mean), one per layer (top first), or
    ('linear', top, bottom)."""
    temperatures: TupleOf[Temperature] = ()
    """generation: a list of settings in the form of temperature; each gets its own images."""
    draw: Literal["mean", "sample", "mode"] = "mean"
    """Show the mean of p(x|z), a sample or the mode."""
    output_temperature: Positive = 1.0
    """Temperature of p(x|z) with draw = sample."""
    save_singles: bool = False
    """generation, reconstruction, decoding: also write each image to its own PNG file."""
    save_targets: bool = False
    """reconstruction: also write each original to its own PNG file."""
    keep_fraction: Fraction | None = None
    """reconstruction, encoding: keep this fraction of all variates (latent channels), those with the largest KL in
    div_stats, and draw the others from the prior; None keeps all."""
    pairs: PositiveInt = 32
    """reconstruction: number of pairs in the picture."""
    iw_samples: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """likelihood: samples K of the importance-weighted bound."""
    chunk: Count = 0
    """likelihood: images times samples in one pass; it bounds the memory; 0 uses batch_size, and on GPUs as many as fit
    into half of the memory that is left, up to 8 GiB."""
    shard_format: Literal["safetensors", "npz"] = "safetensors"
    """encoding: format of the files."""
    shard_size: PositiveInt = 1000
    """encoding, div_stats: images per file, in whole batches; an interrupted mode resumes after the last whole file."""
    shard_dtype: Literal["float32", "float16"] = "float32"
    """encoding: type of latents and posteriors; float16 halves the size of the files."""
    quality_images: PositiveInt = 10_000
    """sample_quality: samples, and at most so many reconstructions, that are compared with the split."""
    extractor: PathText | None = None
    """sample_quality: file of the feature extractor: the published weights of Inception, or any TorchScript file; None
    uses the former from the library's cache."""
    source: PathText | None = None
    """decoding: folder of encodings; None uses those of this run."""
    codes_to: str | None = None
    """encoding of codes: write the codes of both splits as a dump of this name, to train a prior on."""
    prior_run: str | None = None
    """generation from codes: run that draws the codes, trained on the codes of this run; None draws uniform codes."""

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

    @property
    def chunk_or_batch(self) -> int:
        """Images times samples in one pass, where no card's memory says how many."""
        return self.chunk or self.batch_size

    def problems(self) -> Iterator[str]:
        if self.mode == ():
            yield "mode is an empty list; name at least one mode"
        if self.checkpoint not in ("last", "best", "good") and not self.checkpoint.isdecimal():
            yield f"checkpoint is {self.checkpoint!r}; use last, best, good, or the number of a step"
        if self.precision != "float32" and "compression" in self.modes:
            yield "precision = bfloat16 does not suit mode = compression, which must compute the same bits anywhere"
        if self.output_temperature != 1 and self.draw != "sample":
            yield f"output_temperature is of samples, but draw = {self.draw}; set draw = sample"
