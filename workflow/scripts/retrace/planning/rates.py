"""Measured speed of the steps of the workflow: config/rates.yaml."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

from pydantic import Field

from retrace.config.schema import check
from retrace.config.yaml_files import WORKFLOW_CONFIG, read_yaml
from retrace.setting_types import Count, Positive, Text
from retrace.settings_model import SettingsModel


class Rate(SettingsModel):
    """The measured rate of one step, with the number as its page states it."""

    step: Text = Field(description="The step: train, predict, fragments, edges ...")
    network: Text | None = Field(None, description="The network that was measured. None: any.")
    input_shape: tuple[Count, ...] | None = Field(
        None, description="Its `input_shape`, which tells the recipes of one network apart."
    )
    value: Positive = Field(description="The number on the page.")
    unit: Literal["s/Mvoxel", "Mvoxel/s", "µm³/s", "iterations/s"] = Field(
        description="Its unit; of trainings iterations, of all else voxels or µm³ of output."
    )
    gpu: Text | None = Field(None, description="The GPU. None: measured on a CPU.")
    cores: Count = Field(1, description="Cores of the CPU, all of them used.")
    peak_gb: Positive | None = Field(None, description="Peak memory, GB. None: not measured.")
    where: Text = Field(description="The machine, or who measured.")
    page: Text = Field(description="The page of the documentation that contains the number.")

    def seconds(self, voxel_size_nm: Sequence[float] | None) -> float | None:
        """Seconds for an iteration or a million voxels of this size (z, y, x).

        None where the size decides and is unknown.
        """
        if self.unit == "s/Mvoxel":
            return self.value
        if self.unit != "µm³/s":
            return 1 / self.value
        return math.prod(voxel_size_nm) / 1e9 * 1e6 / self.value if voxel_size_nm else None

    @property
    def source(self) -> str:
        """Where the number is from, in words."""
        return f"{self.page}, {f'{self.gpu} ({self.where})' if self.gpu else self.where}"


class Rates(SettingsModel):
    """All rates."""

    rates: tuple[Rate, ...] = Field(description="One for each step, network and kind of device.")


@cache
def measured_rates() -> tuple[Rate, ...]:
    """The rates that retrace comes with; ConfigError if the file is invalid."""
    file = WORKFLOW_CONFIG / "rates.yaml"
    return check(Rates, read_yaml(file), str(file)).rates


def rate_of(
    step: str, *, on_gpu: bool, network: str | None = None, input_shape: Sequence[int] = ()
) -> Rate | None:
    """The rate of a step on a GPU or a CPU, of its network where it has one; None if unknown."""
    for rate in measured_rates():
        is_same = (rate.step, rate.gpu is not None) == (step, on_gpu)
        wanted = (network, tuple(input_shape)) if rate.network else (None, ())
        if is_same and (rate.network, tuple(rate.input_shape or ())) == wanted:
            return rate
    return None
