"""Learning rate, momentum and warping of ELEKTRONN's networks, iteration by iteration.

They follow from a list of changes {iteration, set, by, decided} alone. Changes made by a command
are saved to a file, so that an interrupted training ends with the same weights when it resumes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from retrace.config.elektronn_network import CosineSchedule, ScheduledAction, ScheduledValues
from retrace.files import atomic_write, read_parsed
from retrace.training.learning_rate import rate_factor

FILE = "changes.json"
DECAY_EVERY = 1000
"""Iterations between two decays of the rate; the first follows the first iteration."""
LEAD = 32
"""Iterations until a change takes effect: the next batches may be prefetched already."""
BY_COMMAND = "order"
"""Origin of a change made by a command, as saved in the file."""
DECLARED = "declared"
"""Origin of a change in the network's settings."""


@dataclass(frozen=True)
class RateValues:
    """Values of training settings that can change while a network trains; None: not set."""

    lr: float | None = None
    momentum: float | None = None
    warp_on: bool | float | None = None
    """Whether patches are warped, or the fraction of them that is."""

    @classmethod
    def of(cls, values: ScheduledValues) -> Self:
        """The values that an action sets."""
        return cls(values.lr, values.momentum, values.warp_on)


@dataclass(frozen=True)
class RateChange:
    """New values from an iteration on."""

    iteration: int
    set: RateValues
    by: str
    """The origin: DECLARED, BY_COMMAND or the name of a plateau."""
    decided: int = 0
    """The iteration in which the change was decided."""

    def as_json(self) -> dict[str, Any]:
        """The change as the file has it, with only the values that it sets."""
        values = {name: v for name, v in asdict(self.set).items() if v is not None}
        return {**asdict(self), "set": values}

    @classmethod
    def read(cls, iteration: int, set: dict[str, Any], by: str, decided: int) -> Self:  # noqa: A002
        """A change from its fields in the file."""
        values = {name: v if isinstance(v, bool) else float(v) for name, v in set.items()}
        return cls(int(iteration), RateValues(**values), str(by), int(decided))


@dataclass
class RateSchedule:
    """Learning rate, momentum and warping of each iteration, counted from 0.

    `cosine`: (warm-up, last) iterations of a factor that rises linearly to 1 and falls to 0 as a
    cosine.
    """

    start: RateValues
    """All values of the first iteration."""
    decay: float
    cosine: tuple[int, int] | None = None
    work: Path | None = None
    changes: list[RateChange] = field(default_factory=list)

    def value(self, name: str, iteration: int) -> Any:
        """The value in force at an iteration: the one last set."""
        return self._last(name, iteration)[1]

    def _last(self, name: str, iteration: int) -> tuple[int, Any]:
        """(Iteration, value) of the last change of `name`."""
        last = (0, getattr(self.start, name))
        for change in self.changes:
            value = getattr(change.set, name)
            if value is not None and last[0] <= change.iteration <= iteration:
                last = (change.iteration, value)
        return last

    def lr(self, iteration: int) -> float:
        """The learning rate of an iteration: the one last set, decayed since.

        ELEKTRONN decays it after each iteration whose number is a multiple of 1000, including 0.
        """
        since, rate = self._last("lr", iteration)
        times = -(-iteration // DECAY_EVERY) - -(-since // DECAY_EVERY)
        return float(rate * self.decay**times * self._factor(iteration))

    def _factor(self, iteration: int) -> float:
        if self.cosine is None:
            return 1.0
        return rate_factor(iteration, *self.cosine)

    def add(self, change: RateChange) -> None:
        """Adds a change, and saves it."""
        self.changes.append(change)
        self.changes.sort(key=lambda change: change.iteration)
        if self.work is not None:
            saved = [c.as_json() for c in self.changes if c.by != DECLARED]
            atomic_write(self.work / FILE, json.dumps(saved) + "\n")

    def resume(self, work: Path, iteration: int) -> None:
        """Loads the changes of an earlier run that resumes at `iteration`.

        Plateau actions decided after that iteration are dropped; the training decides them again.
        """
        self.work = work
        path = work / FILE
        saved = read_parsed(path, _rate_changes) if path.is_file() else []
        valid = [c for c in saved if c.by == BY_COMMAND or c.decided <= iteration]
        self.changes = sorted([*self.changes, *valid], key=lambda change: change.iteration)

    def has_fired(self, by: str) -> bool:
        """Whether a change of that origin was made."""
        return any(change.by == by for change in self.changes)


def _rate_changes(content: Any) -> list[RateChange]:
    """Changes as a file keeps them."""
    return [RateChange.read(**change) for change in content]


def declared_schedule(
    *,
    lr: float,
    momentum: float,
    warp_on: bool | float,
    lr_decay: float,
    lr_schedule: Sequence[tuple[int, float]] = (),
    cosine: CosineSchedule | None = None,
    actions: Sequence[ScheduledAction] = (),
) -> RateSchedule:
    """The schedule in a network's settings: first values, LR_schedule, actions `at_iteration`."""
    changes = [RateChange(at, RateValues(lr=rate), DECLARED) for at, rate in lr_schedule]
    changes += [
        RateChange(action.at_iteration, RateValues.of(action.set), DECLARED)
        for action in actions
        if action.at_iteration is not None
    ]
    changes.sort(key=lambda change: change.iteration)
    curve = (cosine.warmup, cosine.until) if cosine else None
    return RateSchedule(RateValues(lr, momentum, warp_on), lr_decay, curve, changes=changes)


def has_stalled(errors: Sequence[float], patience: int, least: float) -> bool:
    """Whether the last `patience` values are not lower, by `least`, than the lowest before them."""
    if len(errors) <= patience:
        return False
    return min(errors[-patience:]) >= min(errors[:-patience]) - least
