"""Training runs of alignment networks, kept under unique names, with their lineage.

A run is the folder RUNS/NAME with archive.safetensors and run.json: settings, digest, parent, and
the record of its job, by which planning knows whether the name is taken. It is never overwritten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.files import atomic_write, read_json, read_parsed
from retrace.planning.named_runs import RUN_RECORD, other_end, taken, without_length
from retrace.records.record import KEY, running_job
from retrace.storage.manifest import input_digest

ARCHIVE = "archive.safetensors"
SHOWN = (
    *(f"lambda{number}" for number in range(1, 7)),
    "lr",
    "height",
    "epochs",
    "trunc",
    "fine_tuning",
)
"""Settings in the summary of a run."""


def run_name(configured: str | None, experiment: str, training: str, end: int) -> str:
    """The configured name, or one of the experiment, the training's digest and its `end`."""
    return configured or f"{experiment}_{training[:8]}_{end}"


def check_run_is_free(runs: Path, name: str, training: str, end: int) -> None:
    """ConfigError if there is a run of that name with other settings, or another last iteration."""
    if not (runs / name / RUN_RECORD).is_file():
        return
    run = read_parsed(
        runs / name / RUN_RECORD,
        lambda run: {"requested": run["iterations"], "digest": run["training_digest"], **run},
    )
    difference = other_end(run, end)
    if run["digest"] != training:
        difference = f"digest {run['digest']}, now {training}"
    if difference is not None:
        raise taken(name, runs / name, difference)


def free_name(runs: Path, name: str, weights: str) -> str:
    """The first of NAME, NAME_2, NAME_3 … that is free or has these `weights` (a digest).

    On a GPU a training that is repeated may end with other weights.
    """
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(one for one in names if run_weights(runs / one) in (None, weights))


def run_weights(folder: Path) -> str | None:
    """The digest of the weights in the folder of a run; None if there is no complete run."""
    is_complete = (folder / ARCHIVE).is_file() and (folder / RUN_RECORD).is_file()
    return str(read_json(folder / RUN_RECORD).get("weights")) if is_complete else None


def save_run(runs: Path, name: str, model: Path, facts: Mapping[str, Any]) -> None:
    """Copies a finished model to its run and records how it was trained, unless that is done."""
    folder = runs / name
    if run_weights(folder) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / ARCHIVE, model.read_bytes())
    record = {"name": name, "finished": round(time.time()), **facts, **_identity()}
    record["archive_digest"] = input_digest(folder / ARCHIVE)
    atomic_write(folder / RUN_RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _identity() -> dict[str, Any]:
    """The record of this job without the name and the length of the training; empty by hand."""
    job = running_job()
    if job is None:
        return {}
    content = job.content()
    content["settings"] = without_length(content["settings"])
    return {KEY: {"digest": job.identity, **content}}


def read_runs(runs: Path) -> dict[str, dict[str, Any]]:
    """The records of all runs, by name."""
    return {path.parent.name: read_json(path) for path in sorted(runs.glob(f"*/{RUN_RECORD}"))}


def parent_of(record: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the run whose archive, by its digest, a run started from; None if there is none."""
    parent = record["parent"] and record["parent"]["digest"]
    matches = (n for n, run in runs.items() if parent and run["archive_digest"] == parent)
    return next(matches, None)


def lineage(runs: Path, name: str) -> Iterator[dict[str, Any]]:
    """The records of a run and its ancestors, the run first; ConfigError for an unknown name."""
    records = read_runs(runs)
    if name not in records:
        hint = nearest(name, records) if records else f"there is none in {runs}"
        raise ConfigError(f"no run {name!r}; {hint}")
    current: str | None = name
    visited: set[str] = set()
    while current is not None and current not in visited:
        visited.add(current)
        yield records[current]
        current = parent_of(records[current], records)


def run_summary(record: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> str:
    """A run in two lines: what, from which parent, how long, when, with which settings."""
    settings = {key: record["network"].get(key) for key in SHOWN}
    parent = record["parent"]
    origin = "from scratch"
    if parent:
        origin = f"from {parent_of(record, runs) or parent['path']} ({parent['digest']})"
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record["finished"]))
    values = " ".join(f"{key}={value}" for key, value in settings.items())
    return (
        f"{record['name']}: {record['dataset']}_{record['network']['name']}, {origin}, "
        f"{record['iterations']} iterations, {when}\n  {values}"
    )


def print_lineage(runs: Path, name: str | None) -> None:
    """Prints a run and its ancestors; without a name, all runs. ConfigError if there is none."""
    records = read_runs(runs)
    if not records:
        raise ConfigError(f"no runs in {runs}; train first")
    for record in lineage(runs, name) if name else records.values():
        print(run_summary(record, records))
