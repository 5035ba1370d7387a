"""Which jobs made a result, and that each was made of what is there now.

The jobs are those that Snakemake recorded when they ended (one JSON file an output, whose path is
the output's in base64, cut into folders; snakemake/persistence.py). What went into a result is in
its manifest, or under `origin` in the JSON files of trainings and evaluations.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.remote.addresses import is_address
from retrace.storage.manifest import input_digest, manifest_path

RECORDS = Path(".snakemake/metadata")
MADE = ("data/", "results/", "work/")
"""Where what jobs made lies, below the working directory."""


@dataclass(frozen=True)
class Job:
    """A finished job."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    command: str
    begun: float
    ended: float

    @property
    def name(self) -> str:
        """Rule and first output, which no other job has."""
        return f"{self.rule} {self.outputs[0]}"


def utc(moment: float) -> str:
    """Seconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _recorded_output(path: Path, folder: Path) -> str:
    parts = [part.removeprefix("@") for part in path.relative_to(folder).parts]
    return urlsafe_b64decode("".join(parts)).decode()


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Outputs and their records, sorted by file.

    A job that runs at the same time may have its record written, or taken away, just now.
    """
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    for path in sorted(files):
        try:
            content = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue
        yield _recorded_output(path, folder), content


def read_jobs(folder: Path = RECORDS) -> dict[str, Job]:
    """By output, the job that Snakemake recorded to have made it."""
    jobs: dict[str, Job] = {}
    for output, record in _records(folder):
        if record.get("incomplete") or record.get("endtime") is None:
            continue
        command = record["shellcmd"] or ""
        before = jobs.get(command)
        outputs = (*(before.outputs if before else ()), output)
        jobs[command] = Job(
            record["rule"],
            tuple(record["input"] or ()),
            tuple(sorted(outputs)),
            tuple(record["log"] or ()),
            command,
            min(record["starttime"], before.begun if before else record["starttime"]),
            max(record["endtime"], before.ended if before else record["endtime"]),
        )
    return {output: job for job in jobs.values() if job.command for output in job.outputs}


def jobs_behind(targets: Iterable[str], recorded: Mapping[str, Job]) -> list[Job]:
    """The jobs that made the targets, and what those were made of, in the order of their ends.

    DataError for a file below data or results that no record tells of.
    """
    found: dict[str, Job] = {}
    waiting = list(targets)
    while waiting:
        path = waiting.pop()
        job = recorded.get(path)
        if job is None and path.startswith(MADE) and not _is_own(Path(path)):
            raise DataError(
                f"how {path} was made is not known: Snakemake has no record of it in {RECORDS}; "
                f"make it again with --forcerun, or keep .snakemake where results are kept"
            )
        if job is not None and job.command not in found:
            found[job.command] = job
            waiting += job.inputs
    present = [replace(j, outputs=_existing(j.outputs)) for j in found.values()]
    return sorted((j for j in present if j.outputs), key=lambda job: job.ended)


def _is_own(path: Path) -> bool:
    """Whether a file below data was put there by the user: what is fetched has a manifest."""
    return path.parts[0] == "data" and not (
        path.name.endswith(".manifest.json") or manifest_path(path).is_file()
    )


def _existing(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if Path(path).exists())


def origins(job: Job) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the outputs of a job say they were made of: (output, manifest or origin)."""
    for output in job.outputs:
        path = Path(output)
        if path.is_dir() and manifest_path(path).is_file():
            yield output, json.loads(manifest_path(path).read_text())
        elif path.suffix == ".json" and not output.endswith(".manifest.json"):
            content = json.loads(path.read_text())
            if isinstance(content, dict) and "origin" in content:
                yield output, content["origin"]


def check_chain(jobs: Iterable[Job]) -> int:
    """How many links were compared: each result was made of what is there now.

    DataError names the first result that was not, as one whose input was made anew since.
    """
    links = 0
    for job in jobs:
        for output, made_of in origins(job):
            for name, expected in made_of["inputs"].items():
                if is_address(name) or not Path(name).exists():
                    continue
                links += 1
                if input_digest(Path(name)) != expected:
                    raise DataError(
                        f"{output} was not made of the {name} that is there now; run its target "
                        "again before it is described"
                    )
    return links
