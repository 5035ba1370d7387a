"""What a program has read of volumes: files and remote volumes, for manifests and work folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace.formats.source import Source
from retrace.records.contents import fingerprint
from retrace.remote.addresses import is_address
from retrace.remote.block_reader import BlockReader
from retrace.remote.read_record import ChangedError, merge_records
from retrace.storage.manifest import origin, store_with_manifest
from retrace.storage.volumes import OpenedVolumes, Volume


def local_paths(sources: Iterable[Source]) -> list[Path]:
    """The paths of those sources that are files or folders of this machine."""
    return [Path(s.path) for s in sources if not is_address(s.path)]


def remote_reads(*volumes: Volume | None) -> dict[str, dict[str, Any]]:
    """What was read of the remote ones among `volumes`, by address (ReadRecord.summary)."""
    return _merged(v.reader for v in volumes if v is not None and v.reader is not None)


def _merged(readers: Iterable[BlockReader]) -> dict[str, dict[str, Any]]:
    """What was read, by address; an address may have several readers, one for each array."""
    records = [reader.record for reader in readers]
    return {
        url: merge_records([record for record in records if record.url == url]).summary()
        for url in sorted({record.url for record in records})
    }


def origin_of_opened(
    opened: OpenedVolumes, files: Iterable[Path], settings: object, seconds: float
) -> dict[str, Any]:
    """`manifest.origin` of a result computed from the volumes in `opened` and from `files`.

    `settings`: any JSON object, written unchanged. ChangedError if a remote volume that was opened
    twice changed in between.
    """
    paths = [Path(path) for path, _ in opened if not is_address(path)]
    inputs = sorted({*(store_with_manifest(path) or path for path in paths), *files})
    read = _merged(volume.reader for _, volume in opened if volume.reader is not None)
    return origin(inputs, settings, seconds, read)


def volume_version(volume: Volume, path: str) -> str:
    """A value that differs after a change of the volume.

    For a remote volume it comes from its metadata, for a local one from the times of its files.
    """
    if volume.reader is not None:
        return volume.reader.record.version
    return fingerprint(Path(path))


@contextmanager
def same_version(work: Path, *volumes: Volume | None) -> Iterator[None]:
    """Makes sure that interrupted and resumed runs read the same version of remote volumes.

    Files in `work` record what was read. If a volume changes (ChangedError), `work` is deleted, so
    that the next run starts again.
    """
    try:
        for index, volume in enumerate(volumes):
            if volume is not None and volume.reader is not None:
                volume.reader.record.keep_in(work / f"read_{index}.jsonl")
        yield
    except ChangedError:
        shutil.rmtree(work, ignore_errors=True)
        raise
