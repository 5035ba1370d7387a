"""Validation of ELEKTRONN's networks: their own measurements on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from retrace.config.validation_model import Interval, is_due
from retrace.networks.elektronn import ElektronnNetwork
from retrace.training.task import Measurement
from retrace.training.validation_picture import validation_image

if TYPE_CHECKING:
    from retrace.training.elektronn_family import ElektronnTask

LOSS, ERROR = "validation_loss", "validation_error"


@dataclass(frozen=True)
class ElektronnValidation:
    """The loss and the error of the validation split that the history of a training has, too.

    `every` auto: whenever the history is measured, and nothing is computed twice.
    """

    task: ElektronnTask
    every: Interval
    identity: str

    def is_due(self, iteration: int) -> bool:
        """As the settings say, or with the history."""
        if self.every == "auto":
            return self._row(iteration) is not None
        return is_due(iteration, self.every)

    def measure(self, module: nn.Module, iteration: int) -> Measurement:
        """From the history if it has them; the weights' moving average is measured by itself."""
        assert isinstance(module, ElektronnNetwork)
        row = self._row(iteration) if module is self.task.module else None
        if row is None:
            means = self.task.split_means("validation", module)
            row = {f"validation_{name}": value for name, value in means.items()}
        values = {"loss": row.get(LOSS)} | ({"error": row[ERROR]} if ERROR in row else {})
        return Measurement(values, validation_image(self.task.validation_pictures(module)))

    def _row(self, iteration: int) -> dict[str, float] | None:
        rows = self.task.rows
        return rows[-1] if rows and rows[-1]["iteration"] == iteration else None


def elektronn_validation(
    task: ElektronnTask, every: Interval, *, has_data: bool
) -> ElektronnValidation | None:
    """How a training is measured; None without a validation split."""
    return ElektronnValidation(task, every, task.measured_on) if has_data else None
