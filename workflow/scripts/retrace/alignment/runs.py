"""Training runs of alignment networks, kept under unique names, with their lineage.

A run is the folder RUNS/NAME with archive.safetensors and run.json (settings, digest, parent). It
is never overwritten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.files import atomic_write, read_json, read_parsed
from retrace.storage.manifest import input_digest

ARCHIVE, RECORD = "archive.safetensors", "run.json"
SHOWN = (
    *(f"lambda{number}" for number in range(1, 7)),
    "lr",
    "height",
    "epochs",
    "trunc",
    "fine_tuning",
)
"""Settings in the summary of a run."""


def run_name(configured: str | None, experiment: str, training: str) -> str:
    """The configured name, or one made of the experiment and the training's digest."""
    return configured or f"{experiment}_{training[:8]}"


def check_run_is_free(runs: Path, name: str, training: str) -> None:
    """ConfigError if there is a run of that name with other settings."""
    record = runs / name / RECORD
    if not record.is_file():
        return
    existing = read_parsed(record, lambda content: str(content["training_digest"]))
    if existing != training:
        raise ConfigError(
            f"`run: {name}` was trained with other settings (digest {existing}, now {training}) "
            f"and is not overwritten; choose another name, or delete {runs / name}"
        )


def save_run(runs: Path, name: str, model: Path, facts: Mapping[str, Any]) -> Path:
    """Copies a finished model to its run and records how it was trained; returns the record."""
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / ARCHIVE, model.read_bytes())
    record = {"name": name, "finished": round(time.time()), **facts}
    record["archive_digest"] = input_digest(folder / ARCHIVE)
    return atomic_write(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_runs(runs: Path) -> dict[str, dict[str, Any]]:
    """The records of all runs, by name."""
    return {path.parent.name: read_json(path) for path in sorted(runs.glob(f"*/{RECORD}"))}


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
