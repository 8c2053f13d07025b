"""TensorBoard: the same numbers as curves, and the pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


class TensorBoardReporter:
    """Writes event files into ``folder``; what an interrupted run wrote beyond ``start_step`` is hidden."""

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import, and only training needs it

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)

    def hparams(self, cfg: str, values: Mapping[str, str | float]) -> None:
        """The resolved settings, as text and as TensorBoard's hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        self._writer.add_text("hparams", "```\n" + cfg + "```", 0)
        for summary in hparams(dict(values), {"val/nelbo": None}):
            self._writer._get_file_writer().add_summary(summary)  # add_hparams would open a run of its own

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self._writer.add_image(tag, grid, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
