"""The identity of a planned job: which inputs other jobs write, and where its record belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from retrace.files import digest, write_json
from retrace.job import Job
from retrace.settings_model import deciding
from retrace.storage.manifest import manifest_path
from retrace.storage.record import Planned

PLANS = Path("work/plans")
"""Where planning leaves what a job needs to know of its identity."""


def record_file(outputs: Sequence[str]) -> str:
    """The manifest that holds a job's record: of its first output, unless one is an output."""
    manifests = [path for path in outputs if path.endswith(".manifest.json")]
    return manifests[0] if manifests else str(manifest_path(Path(outputs[0])))


def planned_record(
    job: Job,
    *,
    outputs: Sequence[str],
    code: Mapping[str, str],
    image: str | None,
    producer: Callable[[str], Planned | None],
) -> Planned:
    """What decides the outputs of a job."""
    files = list(dict.fromkeys(path for role in job.files().values() for path in role))
    writers = {path: producer(path) for path in files}
    return Planned(
        record=record_file(outputs),
        settings=deciding(job.settings),
        code={} if job.copies else code,
        image=None if job.copies else image,
        produced=_by_record({path: one.record for path, one in writers.items() if one}),
        own=tuple(path for path, one in writers.items() if one is None),
    )


def _by_record(records: Mapping[str, str]) -> dict[str, str]:
    """One file for each record: a store stands for its manifest, and for further outputs."""
    first: dict[str, str] = {}
    for path, record in records.items():
        first.setdefault(record, path)
    return {path: record for record, path in first.items()}


def write_plan(planned: Planned, *, write: bool) -> str:
    """The file that describes a planned job to its program; `write`: written, if it may be."""
    path = PLANS / f"{digest(planned.record)}.json"
    if write:
        write_json(path, planned.plain())
    return str(path)
