"""Which results are current: planning compares what it would compute with what was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrace.planning.paths import manifest
from retrace.records.contents import content_digest, fingerprint, output_digest
from retrace.records.record import Finished, Planned, read_finished, start
from retrace.records.stores import described_store
from retrace.replacement import MANIFEST
from retrace.storage.foreign_entries import check_replaceable
from retrace.storage.manifest import check_format

Producer = Callable[[str], Planned | None]
"""The planned job that writes a file; None for files that no job writes."""
AGAIN = " is computed again"
"""The end of a reason that another job has."""
FORCED = "forced on the command line"
"""The reason of a job that --force, --forcerun or --forceall names."""
SHOWN = 60
"""Longest value that a reason shows, characters."""


@dataclass
class Comparison:
    """Compares planned jobs with the records of their outputs; every job once.

    `forced`: records of jobs that run whatever their records say, and with them all that reads
    their outputs.
    """

    forced: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)
    """Records of jobs whose outputs are gone, and needed in this run."""
    keep_without_files: bool = False
    """Whether a result stays if a file that it was computed from is gone: it cannot be computed
    again."""
    only_certain: bool = False
    """Whether a result without a record counts as equal: computed again, it may be."""
    _reasons: dict[str, str | None] = field(default_factory=dict)
    _finished: dict[str, Finished | None] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)
    """Of files, once per plan: many jobs read one folder, which may have very many files."""

    def reason(self, job: Planned, producer: Producer) -> str | None:
        """Why the outputs of a job are not current, in a few words; None if they are.

        DataError if another version of retrace wrote them in a format of its own.
        """
        if job.record not in self._reasons:
            self._reasons[job.record] = None  # until it is known; a job never waits for itself
            self._reasons[job.record] = next(self._differences(job, producer), None)
        return self._reasons[job.record]

    def missing(self, job: Planned, path: str) -> str | None:
        """What is gone of an output although its record is there: the store, an array, the file."""
        if self._finished_job(job.record) is None:
            return None
        store = described_store(_described_by(job, path))
        expected = [Path(path)] if store is None else store.paths
        return next((str(one) for one in expected if not one.exists()), None)

    def check_replaceable(self, job: Planned) -> None:
        """DataError if a user has put files into a store that a job would replace."""
        if self._finished_job(job.record) is None:
            return
        manifests = [path for path in (job.record, *job.outputs) if path.endswith(MANIFEST)]
        for store in map(described_store, map(Path, dict.fromkeys(manifests))):
            if store is not None:
                check_replaceable(store.path, store.names)

    def _differences(self, job: Planned, producer: Producer) -> Iterator[str]:
        if job.record in self.forced:
            yield FORCED
            return
        finished = self._finished_job(job.record)
        if finished is None and job.reads_nothing and not Path(job.record).exists():
            return  # Snakemake runs it where it is needed; readers compare the identity
        if finished is None:
            if not self.only_certain:
                yield f"{job.record} does not say from what it was computed"
            return
        record = finished.record
        yield from differences(record, asdict(job))
        yield from _set_differences(record["inputs"], [*job.produced, *job.own])
        for path, file in job.produced.items():
            yield from self._produced_difference(path, file, record["inputs"], producer)
        for path in job.own:
            stays = self.keep_without_files and not Path(path).exists()
            if not stays and self._changed(path, record["inputs"].get(path, {})):
                yield f"{path} changed"
        for path, sha256 in record.get("outputs", {}).items():
            if Path(path).exists() and output_digest(Path(path)) != sha256:
                yield f"{path} is not the file that was computed"

    def _changed(self, path: str, version: Mapping[str, str]) -> bool:
        """Whether a file has other bytes than the version; its times alone do not matter."""
        if not Path(path).exists():
            return True
        if path not in self._fingerprints:
            self._fingerprints[path] = fingerprint(Path(path))
        if self._fingerprints[path] == version.get("fingerprint"):
            return False
        if path not in self._contents:
            self._contents[path] = content_digest(Path(path))
        return self._contents[path] != version.get("sha256")

    def _produced_difference(
        self, path: str, file: str, inputs: Mapping[str, Any], producer: Producer
    ) -> Iterator[str]:
        job = producer(path)
        if job is not None and self.reason(job, producer):
            yield f"{path}{AGAIN}"
            return
        finished, version = self._finished_job(file), inputs.get(path, {})
        if finished is None and self.only_certain:
            is_current = True
        elif finished is None and job is not None and job.reads_nothing:
            is_current = version.get("identity") == start(job).identity  # such as a fetched volume
        else:
            is_current = finished is not None and version == finished.version
        if not is_current:
            yield f"{path} was computed again"

    def _finished_job(self, file: str) -> Finished | None:
        """What a manifest or record holds, read once."""
        if file not in self._finished:
            self._finished[file] = finished = read_finished(Path(file))
            if finished and finished.store is not None:
                check_format(finished.store, finished.format_version)
        return self._finished[file]


def _described_by(job: Planned, path: str) -> Path:
    """The manifest of an output of a job, which may write several stores; else its record."""
    own = [one for one in (path, manifest(path)) if one.endswith(MANIFEST) and one in job.outputs]
    return Path(next(iter(own), job.record))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two records besides their inputs: settings, code, image."""
    yield from setting_differences(before["settings"], after["settings"], before["resolved"])
    for path in sorted(before["code"].keys() | after["code"].keys()):
        if before["code"].get(path) != after["code"].get(path):
            yield f"the code in {path} changed" if path.endswith(".py") else f"{path} changed"
    if before["image"] != after["image"]:
        yield f"the image changed from {before['image']} to {after['image']}"


def setting_differences(
    before: Any, after: Any, resolved: Mapping[str, Any], name: str = ""
) -> Iterator[str]:
    """Each setting that differs, as `NAME changed from A to B`.

    `resolved`: by name what `auto` was; a value equals the `auto` that became it, and `auto` all.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{name}.{key}" if name else key
            yield from setting_differences(before.get(key), after.get(key), resolved, inner)
    elif _are_groups(before, after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from setting_differences(one, other, resolved, f"{name}[{number}]")
    elif before != after:
        used = resolved.get(name, before)
        if name not in resolved or after not in ("auto", used):
            yield f"{name or 'settings'} changed from {_shown(used)} to {_shown(after)}"


def _are_groups(before: Any, after: Any) -> bool:
    """Whether both are lists of as many groups, in which a setting that is new may be absent."""
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after)):
        return False
    return all(isinstance(group, dict) for group in [*before, *after])


def _set_differences(before: Mapping[str, Any], after: list[str]) -> Iterator[str]:
    for path in sorted(set(after) - before.keys()):
        yield f"{path} is read now"
    for path in sorted(before.keys() - set(after)):
        yield f"{path} is not read any more"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
