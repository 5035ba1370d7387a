"""The identity of a planned job: which inputs other jobs write, and where its record belongs."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.files import digest, write_json
from retrace.job import Job
from retrace.planning.code_digest import code_digests
from retrace.planning.paths import manifest
from retrace.planning.program_files import ROOT, SCRIPTS
from retrace.records.record import Planned, version_of
from retrace.replacement import MANIFEST, RECORD
from retrace.settings_model import deciding

PLANS = Path("work/plans")
"""Where planning leaves what a job needs to know of its identity."""
PIPE = ".pipe"
"""End of the name of a pipe between two jobs, which no result depends on."""


def record_file(outputs: Sequence[str], *, kept: bool) -> str:
    """The file that holds a job's record: a manifest or a record among its outputs.

    Else a record next to the first output. `kept`: whether the outputs stay; otherwise the record
    is in the folder of plans.
    """
    if not kept:
        return str(PLANS / f"{digest(outputs[0])}{RECORD}")
    declared = [path for path in outputs if path.endswith((MANIFEST, RECORD))]
    return declared[0] if declared else record_next_to(outputs[0])


def record_next_to(path: str) -> str:
    """`x/model.safetensors` -> `x/model.record.json`."""
    return str(Path(path).with_suffix(RECORD))


def planned_record(
    job: Job,
    *,
    record: str,
    outputs: Sequence[str] = (),
    code: Mapping[str, str],
    image: str | None,
    producer: Callable[[str], Planned | None],
) -> Planned:
    """What decides the outputs of a job."""
    files = dict.fromkeys(path for role in job.files().values() for path in role)
    writers = {path: _writer(path, producer) for path in files if not path.endswith(PIPE)}
    passing = [one for one in writers.values() if one and is_passing(one.record)]
    lasting = {path: one for path, one in writers.items() if one not in passing}
    produced = _by_record({path: one.record for path, one in lasting.items() if one})
    manifests = set(map(manifest, lasting))
    reads = [path for path, one in lasting.items() if one and path not in manifests]
    own = [path for path, one in lasting.items() if one is None] + job.untracked_files()
    shipped = [path for path in own if is_shipped(path)]
    own = [path for path in own if path not in shipped]
    code = {**code, **code_digests([Path(path).resolve() for path in shipped], ROOT)}
    return Planned(
        record=record,
        settings=deciding(job.settings),
        code={} if job.copies else dict(ChainMap(code, *map(_code_and_image, passing))),
        image=None if job.copies else image,
        produced=dict(ChainMap(produced, *(dict(one.produced) for one in passing))),
        own=tuple(dict.fromkeys([*own, *(path for one in passing for path in one.own)])),
        reads=tuple(dict.fromkeys([*reads, *(path for one in passing for path in one.reads)])),
        outputs=tuple(outputs),
        measured=tuple(path for path in (*produced, *own) if path in job.measured),
        found=version_of(Path(record)) if job.copies else None,
    )


def _writer(path: str, producer: Callable[[str], Planned | None]) -> Planned | None:
    """The job that wrote a file, or will; None for a file that the user put in its place.

    Only a job that fetches can be spared by a file; its own file comes with a record.
    """
    job = producer(path)
    is_users = job is not None and job.reads_nothing and not Path(job.record).exists()
    return None if is_users and Path(path).is_file() else job


def is_shipped(path: str) -> bool:
    """Whether a file comes with the workflow: it counts like code, wherever the clone is."""
    file, folders = Path(path).resolve(), (WORKFLOW_CONFIG.resolve(), SCRIPTS.resolve())
    is_text = file.suffix in (".yaml", ".jinja") and file.is_file()
    return is_text and any(file.is_relative_to(folder) for folder in folders)


def is_passing(record: str) -> bool:
    """Whether a record is of outputs that do not stay; what they depend on counts instead."""
    return Path(record).parent == PLANS


def _code_and_image(planned: Planned) -> dict[str, str]:
    """The code of a job whose outputs do not stay, with its image."""
    image = {f"image {planned.image}": ""} if planned.image else {}
    return {**planned.code, **image}


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
