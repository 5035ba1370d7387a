"""The metadata files of a zarr on this machine: groups, arrays, attributes. No zarr library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.reading import existing_bytes, parse_json_object

GROUP_FILES = (".zgroup", "zarr.json")
ZARR_FILES = (*GROUP_FILES, ".zarray")
MOST_GROUPS = 8
"""Folders above an array that may be groups of its store."""


def json_file(file: Path) -> dict[str, Any]:
    """The content of a metadata file, empty where there is none; DataError if it is damaged."""
    content = existing_bytes(file)
    return {} if content is None else parse_json_object(content, file, "fetch the volume again")


def is_array(folder: Path) -> bool:
    """Whether a folder is an array."""
    is_v2 = (folder / ".zarray").is_file()
    return is_v2 or json_file(folder / "zarr.json").get("node_type") == "array"


def is_group(folder: Path) -> bool:
    """Whether a folder is a group."""
    is_v2 = (folder / ".zgroup").is_file()
    return is_v2 or json_file(folder / "zarr.json").get("node_type") == "group"


def attributes(folder: Path) -> Mapping[str, Any]:
    """The attributes of an array or a group; empty where there are none."""
    own = json_file(folder / ".zattrs")
    content: Mapping[str, Any] = own or json_file(folder / "zarr.json").get("attributes") or {}
    return content


def with_outer_groups(store: Path, path: str) -> tuple[Path, str]:
    """The top of the groups around an array, and the path of the array below it.

    `path` of a source may lead to a group or array inside a larger store; what the groups around it
    state counts as well.
    """
    top = store.absolute()
    inner = [part for part in path.split("/") if part]
    for _ in range(MOST_GROUPS):
        if not is_group(top.parent):
            break
        inner.insert(0, top.name)
        top = top.parent
    return top, "/".join(inner)


def array_names(folder: Path, prefix: str = "") -> Iterator[str]:
    """Names of the arrays of a group; folders of chunks are not entered."""
    for child in sorted(folder.iterdir()):
        if not child.is_dir():
            continue
        if is_array(child):
            yield prefix + child.name
        elif any((child / name).is_file() for name in GROUP_FILES):
            yield from array_names(child, f"{prefix}{child.name}/")
