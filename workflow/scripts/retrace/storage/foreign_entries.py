"""Files that users put into a store, and that would disappear when the store is replaced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from retrace.errors import DataError

METADATA = {
    ".zgroup",
    ".zattrs",
    ".zmetadata",
    "zarr.json",
    "attributes.json",
    "info",
    "provenance",
    ".snakemake_timestamp",
}
"""Names of files with metadata of groups and layers."""


def check_replaceable(store: Path, names: Iterable[str]) -> None:
    """DataError if a store holds more than its arrays and files, by their `names` in its manifest.

    Only folders are listed, and not those of arrays, because these may hold very many chunks.
    """
    added = next(added_entries(store, names), None)
    if added is not None:
        raise DataError(
            f"{added} is not part of {store}, which is computed again and would replace it; move "
            f"{added} to another folder first"
        )


def added_entries(store: Path, names: Iterable[str]) -> Iterator[Path]:
    """What a store holds besides its arrays and files, by their `names` in its manifest."""
    known: dict[Path, set[str]] = defaultdict(set)
    for name in names:
        if name in ("", "."):
            return  # the store is one array
        path = store / name
        while path != store:
            known[path.parent].add(path.name)
            path = path.parent
    for folder, own in known.items():
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (path for path in entries if path.name not in own | METADATA)
