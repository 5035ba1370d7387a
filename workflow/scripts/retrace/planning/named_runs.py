"""Names of trainings of alignment networks (`run`); a name that is taken is refused at planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.planning.align_settings import FitSettings
from retrace.planning.identity import AGAIN, Comparison, Producer
from retrace.reading import json_if_intact
from retrace.records.record import Planned

RUNS = Path("results/runs")
RUN_RECORD = "run.json"
"""The folder of all runs, and the file in the folder of each that says how it was trained."""
LENGTH = ("epochs", "iterations")


def without_length(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The deciding settings of a training without its name and its length.

    Trainings that differ only in these have the same weights after the same iteration.
    """
    kept = {name: value for name, value in settings.items() if name not in ("run", *LENGTH)}
    network = {name: value for name, value in settings["network"].items() if name not in LENGTH}
    return kept | {"network": network}


def taken(run: str, folder: Path, difference: str) -> ConfigError:
    """The refusal of a training whose name another training has."""
    return ConfigError(
        f"`run: {run}` is the name of another training ({difference}), which is not overwritten; "
        f"choose another name, for example `run={run}_2`, or move {folder} to another folder first"
    )


@dataclass
class NamedRuns:
    """The names that the trainings of a plan take."""

    _trainings: dict[str, str] = field(default_factory=dict)
    """By name the record of the training."""
    _comparison: Comparison = field(
        default_factory=lambda: Comparison(keep_without_files=True, only_certain=True)
    )

    def check(self, settings: Any, job: Planned, producer: Producer) -> None:
        """ConfigError if a job that will run trains under the name of another training."""
        if not isinstance(settings, FitSettings) or settings.run is None:
            return
        other = self._trainings.setdefault(settings.run, job.record)
        if other != job.record:
            raise ConfigError(
                f"`run: {settings.run}` would name two trainings, {job.outputs[0]} and that of "
                f"{other}; train one of them first, under a name of its own, and name its "
                "results/runs/NAME/archive.safetensors as `init` if the other one starts from it"
            )
        file = RUNS / settings.run / RUN_RECORD
        if file.is_file():
            difference = self._difference(settings, job, file, producer)
            if difference is not None:
                raise taken(settings.run, file.parent, difference)

    def _difference(
        self, settings: FitSettings, job: Planned, file: Path, producer: Producer
    ) -> str | None:
        """What is certain to differ from the training of the run in `file`; None if nothing is."""
        run = json_if_intact(file)
        if not run.get("identity"):
            return f"{file} does not say from what it was computed"
        training = replace(job, record=str(file), settings=without_length(job.settings))
        reason = self._comparison.reason(training, producer)
        return _other_end(settings, run) if reason is None else self._first_cause(reason, producer)

    def _first_cause(self, reason: str, producer: Producer) -> str:
        """The reason of the job that changed first, for a reason that says that it runs again."""
        path, cause = "", reason
        while cause.endswith(AGAIN):
            path = cause.removesuffix(AGAIN)
            job = producer(path)
            following = None if job is None else self._comparison.reason(job, producer)
            if following is None:
                break
            cause = following
        return f"{path}: {cause}" if path and path not in cause else cause


def _other_end(settings: FitSettings, run: Mapping[str, Any]) -> str | None:
    """How the last iteration that is requested differs from that of a run; None if it does not."""
    end = settings.iterations
    if end is None:
        end = (settings.epochs or settings.network.epochs) * run["iterations_per_epoch"]
    return other_end(run, end)


def other_end(run: Mapping[str, Any], end: int) -> str | None:
    """How the last iteration `end` differs from the one that was requested for a run."""
    before = run["requested"]
    return None if before == end else f"its last iteration is {before}, and {end} is requested"
