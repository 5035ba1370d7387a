"""Whether a folder already is what a job would fetch: several runs may fetch into one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.errors import DataError, FetchError
from retrace.records.record import version_of
from retrace.remote.mirror import open_store
from retrace.remote.store import FetchSettings, listing_digest
from retrace.settings_model import deciding
from retrace.storage.manifest import difference_from, manifest_path, read_manifest


def is_fetched(output: Path, settings: FetchSettings, found: str | None) -> bool:
    """Whether the folder `output` is complete, and the server still has the same objects.

    `found`: the version of its manifest when this run began. If another run has finished the folder
    since, its list of chunks is compared, else all its bytes. FetchError if that run had other
    settings.
    """
    content = finished_manifest(output)
    if content is None or not output.is_dir():
        return False
    is_new = version_of(manifest_path(output)) != found
    wanted = deciding(settings)
    if is_new:
        refuse_others(output, content["settings"], wanted)
    if _differences(content["settings"], wanted):
        return False
    if content.get("listing") != listing_digest(open_store(settings).objects()):
        return False
    if difference_from(output, content, digests=not is_new):
        return False
    print(f"[fetch] {output} is complete, and the server has the same objects", flush=True)
    return True


def finished_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of an output; None if there is none, or one of another format version."""
    try:
        return read_manifest(output)
    except DataError:
        return None


def refuse_others(output: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """FetchError if another run has meanwhile fetched an output with other settings."""
    different = _differences(there, wanted)
    if different:
        raise FetchError(
            f"another run has fetched {output} since this one was planned, with other settings "
            f"({'; '.join(different)}). It is kept: runs with different settings need different "
            "`data` folders. To replace it after all, run the same command again"
        )


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {there.get(key)!r}, here {value!r}"
        for key, value in wanted.items()
        if there.get(key) != value
    ]
