"""Settings of the validation during a training: how often, and what its curve decides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrace.setting_types import Count
from retrace.settings_model import SettingsModel

Interval = Literal["auto", "never"] | Count
FIRST_EVERY, LONGEST_EVERY = 32, 1024
"""The shortest and the longest interval of `auto`, iterations."""
POINTS_BEFORE_DOUBLING = 16
"""Measurements of `auto` before its interval begins to double."""


class Validation(SettingsModel):
    """How a training is measured on the dataset's `validation` volumes while it runs."""

    every: Interval = Field(
        "auto",
        description="Iterations between two measurements. auto: 32, and from iteration 1024 on "
        "about a sixteenth of the iterations so far, at most 1024; of ELEKTRONN's networks "
        "their `history_freq`. never: none, and the validation volumes are not read. It has an "
        "effect on the weights only with `keep: best` or `patience`.",
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="Which state becomes model.safetensors: the last one, or that of the lowest "
        "validation loss.",
    )
    patience: Count | None = Field(
        None,
        description="Training ends after this many measurements in a row without a lower "
        "validation loss. null: it does not end early.",
    )

    @property
    def decides(self) -> bool:
        """Whether the measurements decide which weights are the result."""
        return self.keep == "best" or self.patience is not None


def is_due(iteration: int, every: Interval) -> bool:
    """Whether a measurement is due after an iteration; it does not depend on the last one."""
    if every == "never":
        return False
    if every != "auto":
        return iteration % every == 0
    steps = max(1, iteration // (POINTS_BEFORE_DOUBLING * FIRST_EVERY)).bit_length() - 1
    return iteration % min(LONGEST_EVERY, FIRST_EVERY << steps) == 0
