"""The estimates of one run: its jobs, the device they run on, what earlier jobs took."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from retrace.job import Job
from retrace.planning.earlier_jobs import EarlierJob, earlier_jobs
from retrace.planning.estimate import Device, Estimate, estimate
from retrace.planning.experiment import Planner
from retrace.planning.local_device import has_gpu
from retrace.planning.work import Work, work_of
from retrace.settings_model import plain_value

ESTIMATES_FILE = "RETRACE_ESTIMATES"
"""The variable of the environment that names a file to which a dry run adds its estimates."""

Key = tuple[str, tuple[tuple[str, str], ...], int]


@dataclass
class Estimator:
    """Estimates the jobs that a planner plans. Earlier jobs are read once, before jobs run."""

    planner: Planner
    _known: dict[Key, tuple[Work, Estimate]] = field(default_factory=dict)

    @cached_property
    def device(self) -> Device:
        """What networks run on, as far as planning knows it."""
        chosen = self.planner.config.device
        if chosen != "auto":
            return "gpu" if chosen == "cuda" else "cpu"
        if not self.planner.runs_here():
            return "any"
        return "gpu" if has_gpu() else "cpu"

    @cached_property
    def _earlier(self) -> list[EarlierJob]:
        return earlier_jobs()

    def of(self, rule: str, job: Job, wildcards: Mapping[str, str], threads: int) -> Estimate:
        """The estimate for a job, the same for all shards of a volume."""
        names = {name: value for name, value in wildcards.items() if name != "shard"}
        key = (rule, tuple(sorted(names.items())), threads)
        if key not in self._known:
            work = work_of(self.planner, rule, job, wildcards)
            self._known[key] = work, estimate(work, self.device, self._earlier, threads)
        work, known = self._known[key]
        note_estimate(rule, job, wildcards, work, known)
        return known


def note_estimate(
    rule: str, job: Job, wildcards: Mapping[str, str], work: Work, known: Estimate
) -> None:
    """Adds an estimate to the file that cost.py has named, if it has."""
    if file := os.environ.get(ESTIMATES_FILE):
        line = {"rule": rule, "wildcards": dict(wildcards.items())}
        line |= {"work": asdict(work), "estimate": asdict(known)}
        line |= {"fetched": plain_value(job.settings)} if job.copies else {}
        with Path(file).open("a") as lines:
            lines.write(json.dumps(line) + "\n")
