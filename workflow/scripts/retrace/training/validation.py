"""Measures a network on fixed validation data while it is trained, and keeps the best state.

A measurement draws no random number of the training and leaves the network as it was, so that the
weights are the same with and without it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from retrace.config.validation_model import Interval, Validation, is_due
from retrace.errors import DataError
from retrace.training.compared import recorded
from retrace.training.task import Batch, Measurement, Task, ValidationData

OTHER_DATA = "earlier measurements were on other validation data and are left out"
Row = dict[str, Any]
"""A measurement: `iteration`, `loss` and further values by name; None: nothing was compared."""


@dataclass(frozen=True)
class FixedBatches:
    """Batches of a task that networks are measured on, always the same.

    `bf16`: whether the network computes in bfloat16, as in its training.
    """

    task: Task
    batches: Sequence[Batch]
    every: Interval
    identity: str
    bf16: bool = False

    def is_due(self, iteration: int) -> bool:
        """Whether the settings ask for a measurement after this iteration."""
        return is_due(iteration, self.every)

    def measured(
        self, module: nn.Module
    ) -> Iterator[tuple[Batch, dict[str, Tensor], dict[str, float | None]]]:
        """Yields each batch, the network's outputs in float32, and its loss with the loss terms."""
        for batch in self.batches:
            device = batch[next(iter(batch))].device
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                outputs = self.task.predict(module, batch)
            outputs = {head: output.float() for head, output in outputs.items()}
            terms = self.task.losses(outputs, batch)
            uncompared = self.task.uncompared(terms, batch)
            yield batch, outputs, recorded(terms, uncompared, self.task.observed)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Inside this block a module evaluates; its modes and torch's random state stay as they are."""
    modes = {part: part.training for part in module.modules()}
    random = torch.get_rng_state()
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        torch.set_rng_state(random)


@dataclass
class Best:
    """The state of the lowest validation loss so far."""

    iteration: int
    weights: dict[str, Tensor]


@dataclass
class ValidationCurve:
    """The measurements of one training, and what they decide."""

    data: ValidationData
    settings: Validation
    rows: list[Row] = field(default_factory=list)
    best: Best | None = None
    seconds: float = 0.0
    """Time that the measurements of this run took."""

    def measure_if_due(
        self, module: nn.Module, iteration: int, writer: SummaryWriter | None
    ) -> None:
        """Measures the network after an iteration, if it is due."""
        if self.data.is_due(iteration):
            self.measure(module, iteration, writer)

    def measure(self, module: nn.Module, iteration: int, writer: SummaryWriter | None) -> None:
        """Measures the network after an iteration, unless that was done."""
        if self.rows and self.rows[-1]["iteration"] == iteration:
            return
        begin = time.monotonic()
        with undisturbed(module):
            measurement = self.data.measure(module, iteration)
        values = {name: _finite(value) for name, value in measurement.values.items()}
        self._add({"iteration": iteration, **values}, module)
        if writer is not None:
            _write(writer, measurement, iteration)
        self.seconds += time.monotonic() - begin

    def _add(self, row: Row, module: nn.Module) -> None:
        lowest = _loss(self.lowest)
        self.rows.append(row)
        if self.settings.keep == "best" and _loss(row) < lowest:
            weights = {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}
            self.best = Best(row["iteration"], weights)

    @property
    def lowest(self) -> Row | None:
        """The first row of the lowest loss; None if no row has one."""
        known = [row for row in self.rows if math.isfinite(_loss(row))]
        return min(known, key=_loss) if known else None

    @property
    def has_stalled(self) -> bool:
        """Whether the loss has not become lower for `patience` measurements."""
        patience, lowest = self.settings.patience, self.lowest
        if patience is None or lowest is None:
            return False
        return len(self.rows) - 1 - self.rows.index(lowest) >= patience

    def in_best_state(self, module: nn.Module) -> nn.Module:
        """A copy of the module with the weights that are kept; itself if those are the last."""
        if self.best is None:
            return module
        kept = deepcopy(module)
        kept.load_state_dict(self.best.weights)
        return kept

    def state(self) -> dict[str, Any]:
        """What a saved state of the training keeps of it."""
        state: dict[str, Any] = {"data": self.data.identity, "rows": self.rows}
        if self.best is not None:
            state["best"] = {"iteration": self.best.iteration, "weights": self.best.weights}
        return state

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continues a curve; measurements on other data are left out, which is printed."""
        if state.get("data") != self.data.identity:
            if state.get("rows"):
                print(f"[train] {OTHER_DATA}", flush=True)
            return
        self.rows = [dict(row) for row in state["rows"]]
        if self.settings.keep == "best" and "best" in state:
            self.best = Best(state["best"]["iteration"], state["best"]["weights"])

    def facts(self, iteration: int) -> dict[str, Any]:
        """What is recorded with the weights: which state was kept, and its measurement."""
        kept = iteration if self.best is None else self.best.iteration
        row = next((row for row in self.rows if row["iteration"] == kept), None)
        return {"keep": self.settings.keep, "iteration": kept, "measured": row}

    def content(self, iteration: int) -> dict[str, Any]:
        """The curve in training.json."""
        return {
            **self.settings.complete().plain(),
            "kept": self.facts(iteration)["iteration"],
            "stopped_early": self.has_stalled,
            "seconds_this_run": round(self.seconds, 3),
            "rows": self.rows,
        }


def validation_curve(
    settings: Validation, data: ValidationData | None, needs: str
) -> ValidationCurve | None:
    """The measurements of a training; None without any.

    DataError if the settings choose a best state and there are no data for it; `needs` says in
    words what that choice needs.
    """
    if data is not None and settings.every != "never":
        return ValidationCurve(data, settings)
    if settings.decides:
        raise DataError(
            f"`validation`: `keep: best` and `patience` need {needs}, or set `keep: last` and "
            "`patience: null`"
        )
    return None


def kept_state(curve: ValidationCurve | None, iteration: int) -> dict[str, Any]:
    """What a model says of its validation: which state it is, and how that was measured."""
    return {"validation": curve.facts(iteration)} if curve else {}


def _loss(row: Row | None) -> float:
    """The loss of a row; infinite where it is unknown."""
    return math.inf if row is None or row["loss"] is None else float(row["loss"])


def _finite(value: float | None) -> float | None:
    """The value; None if it is no number, as of a network that has diverged."""
    return value if value is not None and math.isfinite(value) else None


def _write(writer: SummaryWriter, measurement: Measurement, iteration: int) -> None:
    for name, value in measurement.values.items():
        if value is not None:
            writer.add_scalar(f"validation/{name}", value, iteration)
    if measurement.image is not None:
        writer.add_image("validation", measurement.image, iteration, dataformats="HWC")


def mean_values(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each value over the batches that have one."""
    means: dict[str, float | None] = {}
    for name in rows[0]:
        known = [value for row in rows if (value := row[name]) is not None]
        means[name] = sum(known) / len(known) if known else None
    return means
