"""Records: from what a finished job computed its outputs, in the manifest of its first output.

Planning compares records with what it would compute now, and so knows which results are current
without any memory of earlier runs. The identity of a result is the digest of its record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.files import (
    atomic_write,
    complete_replacement,
    digest,
    file_sha256,
    read_json,
    read_parsed,
)
from retrace.reading import if_intact, json_if_intact
from retrace.records.contents import (
    content_digest,
    described,
    fingerprint,
    has_changed,
    output_digest,
)
from retrace.relative_paths import relative_path
from retrace.replacement import declare, newest, waiting_outputs

KEY = "identity"
"""Where a manifest holds the record."""

LISTS = ("own", "reads", "outputs", "measured")


@dataclass(frozen=True)
class Planned:
    """What planning knows of a job's identity.

    `code`: digest of each library file; `image`: name of the container image, None without one;
    `produced`: for each input that another job writes, the file with that job's record; `own`:
    inputs that no job writes; `reads`: all stores and files that other jobs write, of which
    `produced` has one for each record; `record`: where this job's record belongs; `outputs`: its
    files; `measured`: those inputs that decide nothing but measurements, and so no unfinished work.
    `found`: the version of `record` when the run was planned, for outputs that other runs may write
    meanwhile.
    """

    record: str
    settings: Any = None
    code: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    produced: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    found: str | None = None

    @property
    def reads_nothing(self) -> bool:
        """Whether planning knows all that decides the outputs, as of a fetch."""
        return not self.produced and not self.own

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {name: list(getattr(self, name)) for name in LISTS}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Planned:
        """From JSON values."""
        lists = {name: tuple(content.get(name, ())) for name in LISTS}
        return cls(**{**content, **lists})


@dataclass(frozen=True)
class Running:
    """A job that has started: its identity, and the versions of its inputs at the start."""

    planned: Planned
    inputs: Mapping[str, Mapping[str, str]]
    resolved: dict[str, Any] = field(default_factory=dict)
    """By name what a setting `auto` became."""

    @property
    def identity(self) -> str:
        """16 hex digits of everything that decides the outputs."""
        return record_digest(self.content())

    def content(self) -> dict[str, Any]:
        """The record without its digest."""
        return {
            "settings": self.planned.settings,
            "code": dict(self.planned.code),
            "image": self.planned.image,
            "resolved": dict(self.resolved),
            "inputs": {path: dict(version) for path, version in self.inputs.items()},
        }

    def work_content(self) -> dict[str, Any]:
        """The record without inputs that only measure: what decides unfinished work."""
        return {**self.content(), "inputs": self._inputs(measured=False)}

    def versions(self) -> dict[str, Any]:
        """What decides unfinished work besides the settings; without times."""
        content = self.work_content()
        parts = {key: content[key] for key in ("code", "image", "resolved")}
        return {**parts, "inputs": _timeless(content)}

    def measured_versions(self) -> dict[str, dict[str, str]]:
        """The versions, without times, of the inputs that only measure."""
        return _timeless({"inputs": self._inputs(measured=True)})

    def _inputs(self, *, measured: bool) -> dict[str, dict[str, str]]:
        """The inputs that only measure, or all others."""
        return {
            path: dict(version)
            for path, version in self.inputs.items()
            if (path in self.planned.measured) == measured
        }

    def write(self) -> None:
        """Writes the record into the manifest of the first output.

        DataError if an input changed meanwhile: what was read of it is unknown.
        """
        for path in self.planned.own:
            if has_changed(Path(path), self.inputs[path]):
                raise DataError(
                    f"{path} changed while this job read it; run the same command again, which "
                    "computes the result from the new version"
                )
        file = Path(self.planned.record)
        latest = newest(file)
        manifest = read_json(latest) if latest.is_file() else {}
        record = {"digest": self.identity, **self.content(), "outputs": self.output_digests()}
        if not waiting_outputs() and _is_same(manifest.get(KEY), record):
            return  # another run wrote the outputs and the record, maybe where this one may not
        atomic_write(file, json.dumps({**manifest, KEY: record}, indent=1, sort_keys=True) + "\n")

    def output_digests(self) -> dict[str, str]:
        """The digest of each file that is an output, by its path; of stores that of a manifest."""
        names = [*self.planned.outputs, *map(relative_path, waiting_outputs())]
        paths = dict.fromkeys(map(Path, names))
        files = {path: newest(path) for path in paths if path != Path(self.planned.record)}
        return {str(path): output_digest(path, new) for path, new in files.items() if new.is_file()}


def _is_same(one: Any, other: Mapping[str, Any]) -> bool:
    """Whether two records have the same origin; only one may list the outputs of a fetch."""
    return isinstance(one, dict) and {**one, "outputs": {}} == {**other, "outputs": {}}


def start(planned: Planned) -> Running:
    """Notes the versions of all inputs; DataError if one has no record or does not exist."""
    inputs: dict[str, dict[str, str]] = {}
    for path, file in planned.produced.items():
        finished = read_finished(Path(file))
        if finished is None:
            raise DataError(f"{path} has no record in {file}; run the same command again")
        inputs[path] = finished.version
    for path in planned.own:
        inputs[path] = {
            "fingerprint": fingerprint(Path(path)),
            "sha256": content_digest(Path(path)),
        }
    return Running(planned, inputs)


_running: list[Running] = []


def start_job(file: Path) -> Running:
    """Starts the job that planning describes in `file`; see `running_job`.

    Its outputs and its record are replaced together.
    """
    planned = read_parsed(file, Planned.parse)
    declare(map(Path, (planned.record, *planned.outputs)), anchor=Path(planned.record))
    _running[:] = [start(planned)]
    return _running[0]


def running_job() -> Running | None:
    """The job of this program; None for a program that is run by hand."""
    return _running[0] if _running else None


def version_of(file: Path) -> str | None:
    """16 hex digits of the bytes of a manifest or record; None if it does not exist."""
    complete_replacement(file)
    try:
        return file_sha256(file)[:16]
    except FileNotFoundError:
        return None


def found_version(file: Path) -> str | None:
    """The version of a manifest or record when this run was planned; now, if it is run by hand."""
    job = running_job()
    return version_of(file) if job is None else job.planned.found


def note_resolved(name: str, value: Any) -> None:
    """Notes what a setting `auto` became, which decides the result."""
    if (job := running_job()) is not None:
        job.resolved[name] = value


def work_digest(parts: Any) -> str:
    """16 hex digits that name unfinished work: of its settings `parts` and, in a job, all else.

    Work that was begun with other inputs, other code or in another image has another name, so that
    nothing resumes from it. Inputs that only measure are no part of it.
    """
    job = running_job()
    return digest(parts if job is None else [parts, job.versions()])


def record_digest(content: Mapping[str, Any]) -> str:
    """The identity that a record describes; times of files are no part of it."""
    parts = {key: content[key] for key in ("code", "image", "resolved")}
    settings = content["settings"]
    if isinstance(settings, dict):  # `auto` and the value that it becomes are the same
        settings = {k: v for k, v in settings.items() if k not in content["resolved"]}
    return digest({**parts, "settings": settings, "inputs": _timeless(content)})


def _timeless(content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The versions of a record's inputs without their fingerprints."""
    return {
        path: {key: value for key, value in version.items() if key != "fingerprint"}
        for path, version in content["inputs"].items()
    }


@dataclass(frozen=True)
class Finished:
    """What the manifest of finished outputs holds; `content`: a digest of all their bytes."""

    record: Mapping[str, Any]
    content: str
    store: Path | None = None
    """The store that the manifest describes; None for outputs without a store."""
    format_version: int | None = None

    @property
    def version(self) -> dict[str, str]:
        """From what the outputs were computed, and what they are."""
        return {"identity": str(self.record["digest"]), "content": self.content}


def read_finished(file: Path) -> Finished | None:
    """The record in a manifest, after the replacement of its outputs is complete; None without."""
    complete_replacement(file)
    manifest = json_if_intact(file)
    return if_intact(partial(_finished, file, manifest), file) if KEY in manifest else None


def _finished(file: Path, manifest: Mapping[str, Any]) -> Finished:
    """The record in the content of a manifest."""
    record = manifest[KEY]
    parts = [*described(manifest), record.get("outputs", {})]
    store = file.with_name(manifest["store"]) if "store" in manifest else None
    return Finished(record, digest(parts), store, manifest.get("format_version"))
