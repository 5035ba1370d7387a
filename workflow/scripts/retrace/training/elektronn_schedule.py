"""Learning rate, momentum and warping of ELEKTRONN's networks, iteration by iteration.

They follow from a list of changes {iteration, set, by, decided} alone. Changes made by a command
are saved to a file, so that an interrupted training ends with the same weights when it resumes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrace.config.elektronn_network import CosineSchedule, ScheduledAction
from retrace.files import atomic_write

FILE = "changes.json"
DECAY_EVERY = 1000
"""Iterations between two decays of the rate; the first follows the first iteration."""
LEAD = 32
"""Iterations until a change takes effect: the next batches may be prefetched already."""
BY_COMMAND = "order"
"""Origin of a change made by a command, as saved in the file."""
DECLARED = "declared"
"""Origin of a change in the network's settings."""


@dataclass
class RateSchedule:
    """Learning rate, momentum and warping of each iteration, counted from 0.

    `cosine`: (warm-up, last) iterations of a factor that rises linearly to 1 and falls to 0 as a
    cosine.
    """

    start: dict[str, Any]
    """`lr`, `momentum` and `warp_on` of the first iteration."""
    decay: float
    cosine: tuple[int, int] | None = None
    work: Path | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    def value(self, name: str, iteration: int) -> Any:
        """The value in force at an iteration: the one last set."""
        return self._last(name, iteration)[1]

    def _last(self, name: str, iteration: int) -> tuple[int, Any]:
        """(Iteration, value) of the last change of `name`."""
        last = (0, self.start[name])
        for change in self.changes:
            if name in change["set"] and last[0] <= change["iteration"] <= iteration:
                last = (change["iteration"], change["set"][name])
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
        warm, last = self.cosine
        if iteration < warm:
            return (iteration + 1) / warm
        fraction = min(1.0, (iteration - warm) / max(last - warm, 1))
        return 0.5 * (1 + math.cos(math.pi * fraction))

    def add(self, iteration: int, values: Mapping[str, Any], by: str, decided: int) -> None:
        """Adds a change from `iteration` on, and saves it."""
        entry = {"iteration": iteration, "set": dict(values), "by": by, "decided": decided}
        self.changes.append(entry)
        self.changes.sort(key=lambda change: change["iteration"])
        if self.work is not None:
            saved = [c for c in self.changes if c["by"] != DECLARED]
            atomic_write(self.work / FILE, json.dumps(saved) + "\n")

    def resume(self, work: Path, iteration: int) -> None:
        """Loads the changes of an earlier run that resumes at `iteration`.

        Plateau actions decided after that iteration are dropped; the training decides them again.
        """
        self.work = work
        path = work / FILE
        saved = json.loads(path.read_text()) if path.is_file() else []
        valid = [c for c in saved if c["by"] == BY_COMMAND or c["decided"] <= iteration]
        self.changes = sorted([*self.changes, *valid], key=lambda change: change["iteration"])

    def has_fired(self, by: str) -> bool:
        """Whether a change of that origin was made."""
        return any(change["by"] == by for change in self.changes)


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
    changes: list[dict[str, Any]] = [
        {"iteration": at, "set": {"lr": rate}} for at, rate in lr_schedule
    ]
    changes += [
        {"iteration": action.at_iteration, "set": action.set.plain()}
        for action in actions
        if action.at_iteration is not None
    ]
    declared = [{**change, "by": DECLARED, "decided": 0} for change in changes]
    declared.sort(key=lambda change: change["iteration"])
    curve = (cosine.warmup, cosine.until) if cosine else None
    start = {"lr": lr, "momentum": momentum, "warp_on": warp_on}
    return RateSchedule(start, lr_decay, curve, changes=declared)


def has_stalled(errors: Sequence[float], patience: int, least: float) -> bool:
    """Whether the last `patience` values are not lower, by `least`, than the lowest before them."""
    if len(errors) <= patience:
        return False
    return min(errors[-patience:]) >= min(errors[:-patience]) - least
