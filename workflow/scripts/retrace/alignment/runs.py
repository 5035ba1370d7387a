"""Runs of training: each under a name of its own that is never overwritten, and whence it came.

A run is the folder RUNS/NAME with archive.safetensors and run.json: settings, digest, parent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.files import atomic_write, read_json
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
"""Settings that a lineage shows."""


def run_name(asked: str | None, experiment: str, training: str) -> str:
    """The name asked for, or one that no other settings give."""
    return asked or f"{experiment}_{training[:8]}"


def check_free(runs: Path, name: str, training: str) -> None:
    """ConfigError where a run of that name was trained with other settings."""
    record = runs / name / RECORD
    if not record.is_file():
        return
    before = read_json(record)["training_digest"]
    if before != training:
        raise ConfigError(
            f"`run: {name}` was trained with other settings already (digest {before}, now "
            f"{training}) and is not overwritten; choose another name, or delete {runs / name}"
        )


def keep(runs: Path, name: str, model: Path, facts: Mapping[str, Any]) -> Path:
    """Copies a finished model to its run and notes what it was made with; the record is last."""
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / ARCHIVE, model.read_bytes())
    record = {"name": name, "finished": round(time.time()), **facts}
    record["archive_digest"] = input_digest(folder / ARCHIVE)
    return atomic_write(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_runs(runs: Path) -> dict[str, dict[str, Any]]:
    """All records by name."""
    return {path.parent.name: read_json(path) for path in sorted(runs.glob(f"*/{RECORD}"))}


def parent_of(record: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name of the run whose archive a run began from, by its bytes; None without one."""
    begun = record["parent"] and record["parent"]["digest"]
    return next((n for n, one in known.items() if begun and one["archive_digest"] == begun), None)


def lineage(runs: Path, name: str) -> Iterator[dict[str, Any]]:
    """The record of a run and of those it came from, the last one first; ConfigError if unknown."""
    known = read_runs(runs)
    if name not in known:
        hint = nearest(name, known) if known else f"there is none in {runs}"
        raise ConfigError(f"no run {name!r}; {hint}")
    now: str | None = name
    seen: set[str] = set()
    while now is not None and now not in seen:
        seen.add(now)
        yield known[now]
        now = parent_of(known[now], known)


def told(record: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    """One run in three lines."""
    settings = {key: record["network"].get(key) for key in SHOWN}
    begun = record["parent"]
    origin = "from scratch"
    if begun:
        origin = f"from {parent_of(record, known) or begun['path']} ({begun['digest']})"
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record["finished"]))
    values = " ".join(f"{key}={value}" for key, value in settings.items())
    return (
        f"{record['name']}: {record['dataset']}_{record['network']['name']}, {origin}, "
        f"{record['iterations']} iterations, {when}\n  {values}"
    )
