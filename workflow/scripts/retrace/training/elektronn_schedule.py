"""What changes while a network of the family elektronn trains: rate, momentum, warping.

Every change is an entry {iteration, set, by} of a list; rate, momentum and warping at an iteration
follow from the list alone. Changes that were ordered are kept in a file, so that a training that is
killed and goes on ends with the same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrace.files import atomic_write

FILE = "changes.json"
DECAY_EVERY = 1000
"""Iterations between two decays of the rate; the first is after the first iteration."""
LEAD = 32
"""Iterations until an ordered change is made: batches of the next ones may be there already."""
SETTABLE = ("lr", "momentum", "warp_on")


@dataclass
class Schedule:
    """Values by iteration, counted from 0: what iteration n learns with.

    `cosine`: (warm-up, last) iterations of a factor that rises to 1 and falls to 0 by a cosine.
    """

    start: dict[str, Any]
    """`lr`, `momentum`, `warp_on` of the first iteration."""
    decay: float
    cosine: tuple[int, int] | None = None
    work: Path | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    def value(self, name: str, iteration: int) -> Any:
        """What was last set before or with an iteration."""
        return self._last(name, iteration)[1]

    def _last(self, name: str, iteration: int) -> tuple[int, Any]:
        found = (0, self.start[name])
        for change in self.changes:
            if name in change["set"] and found[0] <= change["iteration"] <= iteration:
                found = (change["iteration"], change["set"][name])
        return found

    def lr(self, iteration: int) -> float:
        """The rate of an iteration: what was set last, decayed since.

        ELEKTRONN decays after each iteration whose number is a multiple of 1000, 0 among them.
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
        share = min(1.0, (iteration - warm) / max(last - warm, 1))
        return 0.5 * (1 + math.cos(math.pi * share))

    def add(self, iteration: int, values: Mapping[str, Any], by: str, decided: int) -> None:
        """A change from `iteration` on, kept at once."""
        entry = {"iteration": iteration, "set": dict(values), "by": by, "decided": decided}
        self.changes.append(entry)
        self.changes.sort(key=lambda change: change["iteration"])
        if self.work is not None:
            kept = [c for c in self.changes if c["by"] != "declared"]
            atomic_write(self.work / FILE, json.dumps(kept) + "\n")

    def resume(self, work: Path, iteration: int) -> None:
        """Takes up the changes of an earlier run that stood at `iteration`.

        What it had decided by itself after that comes again by itself.
        """
        self.work = work
        path = work / FILE
        kept = json.loads(path.read_text()) if path.is_file() else []
        again = [c for c in kept if c["by"] == "order" or c["decided"] <= iteration]
        self.changes = sorted([*self.changes, *again], key=lambda change: change["iteration"])

    def fired(self, by: str) -> bool:
        """Whether a change of that name was made."""
        return any(change["by"] == by for change in self.changes)


def make_schedule(network: Mapping[str, Any]) -> Schedule:
    """The schedule that a network declares: optimiser, LR_schedule, and actions `at_iteration`."""
    params = network[f"{network['optimizer']}_params"]
    start = {
        "lr": params.get("LR", 0.0),
        "momentum": params.get("momentum", 0.0),
        "warp_on": network["warp_on"],
    }
    changes = [{"iteration": at, "set": {"lr": lr}} for at, lr in network["LR_schedule"] or []]
    changes += [
        {"iteration": action["at_iteration"], "set": action["set"]}
        for action in network["actions"]
        if "at_iteration" in action
    ]
    declared = [{**change, "by": "declared", "decided": 0} for change in changes]
    declared.sort(key=lambda change: change["iteration"])
    curve = network["LR_cosine"]
    cosine = (curve["warmup"], curve["until"]) if curve else None
    return Schedule(start, network["LR_decay"], cosine, changes=declared)


def has_stalled(errors: Sequence[float], patience: int, least: float) -> bool:
    """Whether the last `patience` values are no better, by `least`, than the best before them."""
    if len(errors) <= patience:
        return False
    return min(errors[-patience:]) >= min(errors[:-patience]) - least
