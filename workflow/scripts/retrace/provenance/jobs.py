"""The jobs that a result depends on, and a check that their files have not changed since.

Snakemake records each finished job: one JSON file per output, whose path is the output's path in
base64, split into folders (snakemake/persistence.py). What a result was computed from is in its
manifest, or under `origin` in the JSON files of trainings and evaluations.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.files import read_json
from retrace.reading import if_intact, json_if_intact, reading_content
from retrace.remote.addresses import is_address
from retrace.replacement import MANIFEST
from retrace.storage.manifest import input_digest, manifest_path

RECORDS = Path(".snakemake/metadata")
JOB_FOLDERS = ("data/", "results/", "work/")
"""Folders of the working directory that jobs write to."""


@dataclass(frozen=True)
class FinishedJob:
    """A job as Snakemake recorded it; times in seconds since 1970."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    command: str
    started: float
    ended: float

    @property
    def name(self) -> str:
        """Rule and first output: unique."""
        return f"{self.rule} {self.outputs[0]}"


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _recorded_output(path: Path, folder: Path) -> str:
    parts = [part.removeprefix("@") for part in path.relative_to(folder).parts]
    return urlsafe_b64decode("".join(parts)).decode()


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Outputs and their records, sorted by file; skips records that a running job writes."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    for path in sorted(files):
        output = if_intact(partial(_recorded_output, path, folder), path)  # else no record
        if output and (content := json_if_intact(path)):
            yield output, content


def read_jobs(folder: Path = RECORDS) -> dict[str, FinishedJob]:
    """Finished jobs by each of their outputs."""
    jobs: dict[str, FinishedJob] = {}
    for output, record in _records(folder):
        if record.get("incomplete") or record.get("endtime") is None:
            continue
        with reading_content(f"{folder}: the record of {output}", "delete this folder"):
            command = str(record["shellcmd"] or "")
            jobs[command] = _with_output(jobs.get(command), output, record)
    return {output: job for job in jobs.values() if job.command for output in job.outputs}


def _written(output: str) -> Iterator[str]:
    """An output and, of a manifest, the store that it describes, which is no output of a rule."""
    yield output
    if output.endswith(MANIFEST):
        store = json_if_intact(Path(output)).get("store")
        if store and Path(output).with_name(store).exists():
            yield Path(output).with_name(store).as_posix()


def _with_output(job: FinishedJob | None, output: str, record: Mapping[str, Any]) -> FinishedJob:
    """The job of a record, joined with what other records of the same job contain."""
    return FinishedJob(
        record["rule"],
        tuple(record["input"] or ()),
        tuple(sorted({*(job.outputs if job else ()), *_written(output)})),
        tuple(record["log"] or ()),
        record["shellcmd"] or "",
        min(record["starttime"], job.started if job else record["starttime"]),
        max(record["endtime"], job.ended if job else record["endtime"]),
    )


def jobs_behind(targets: Iterable[str], recorded: Mapping[str, FinishedJob]) -> list[FinishedJob]:
    """All jobs that the targets depend on, by the time they ended.

    DataError for a file below data or results without a record.
    """
    jobs: dict[str, FinishedJob] = {}
    waiting = list(targets)
    while waiting:
        path = waiting.pop()
        job = recorded.get(path)
        if job is None and path.startswith(JOB_FOLDERS) and not _is_own(Path(path)):
            raise DataError(
                f"the job that wrote {path} is not known: Snakemake has no record of it in "
                f"{RECORDS}; create the file again with --forcerun, or copy .snakemake together "
                "with results"
            )
        if job is not None and job.command not in jobs:
            jobs[job.command] = job
            waiting += job.inputs
    present = [replace(job, outputs=_existing(job.outputs)) for job in jobs.values()]
    return sorted((job for job in present if job.outputs), key=lambda job: job.ended)


def _is_own(path: Path) -> bool:
    """Whether a file below data is the user's own: fetched data has a manifest."""
    return path.parts[0] == "data" and not (
        path.name.endswith(MANIFEST) or manifest_path(path).is_file()
    )


def _existing(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if Path(path).exists())


def origins(job: FinishedJob) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Outputs of a job, each with its manifest or `origin`: what it was computed from."""
    for output in job.outputs:
        path = Path(output)
        if path.is_dir() and manifest_path(path).is_file():
            yield output, read_json(manifest_path(path))
        elif path.suffix == ".json" and not output.endswith(MANIFEST):
            content = read_json(path)
            if isinstance(content, dict) and "origin" in content:
                yield output, content["origin"]


def check_chain(jobs: Iterable[FinishedJob]) -> int:
    """Compares every recorded input digest with the file that exists now; returns their number.

    DataError names the first result whose input has changed since.
    """
    compared = 0
    for job in jobs:
        for output, origin in origins(job):
            for name, expected in origin["inputs"].items():
                if is_address(name) or not Path(name).exists():
                    continue
                compared += 1
                if input_digest(Path(name)) != expected:
                    raise DataError(
                        f"{name} has changed since {output} was computed from it; run the target "
                        "again first"
                    )
    return compared
