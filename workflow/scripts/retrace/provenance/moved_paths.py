"""Changes the paths in the file of a dataset or network whose files have moved, and nothing else.

Configurations of ZNN name further files, and are written again: `retrace.znn.moved`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

import yaml

from retrace.relative_paths import relative_path
from retrace.remote.addresses import FORMATS, is_address, local_folder

PATH_KEYS = (
    *("path", "skeletons", "spec", "cfg", "net", "state_archive"),
    *("labelled", "coordinates", "coords"),
)
"""Keys of the files of datasets and networks whose values, as text, are paths."""
PLAIN = re.compile("[A-Za-z0-9][A-Za-z0-9_./-]*")
"""Paths that YAML reads as text without quotes."""
PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
"""What may be before a value: its anchor and its tag."""


def with_moved_paths(text: str, moved: Mapping[str, str]) -> str:
    """The text of such a file in which paths that are keys of `moved` are its values.

    Comments, numbers, names and all other values stay as they are written.
    """
    places = {relative_path(PurePath(old)): new for old, new in moved.items()}
    edits: dict[tuple[int, int], str] = {}
    for node in _paths(yaml.compose(text, Loader=yaml.SafeLoader)):
        new = _moved(node.value, places)
        if new is not None:
            begin = node.start_mark.index
            before = PROPERTIES.match(text, begin)
            begin = before.end() if before else begin
            edits[begin, node.end_mark.index] = _written(new, node.style)
    for (begin, end), new in sorted(edits.items(), reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def names_outside(text: str) -> bool:
    """Whether such a file names a path outside the working directory, or cannot be read."""
    try:
        paths = [node.value for node in _paths(yaml.compose(text, Loader=yaml.SafeLoader))]
    except (yaml.YAMLError, RecursionError):
        return True
    here = Path.cwd().resolve()
    local = [local_folder(path) if is_address(path) else Path(path) for path in paths]
    return any(path and not path.resolve().is_relative_to(here) for path in local)


def _paths(node: yaml.Node | None, key: str = "") -> Iterator[yaml.ScalarNode]:
    """The values that are paths."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _paths(value, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _paths(value, key)
    elif isinstance(node, yaml.ScalarNode) and key in PATH_KEYS:
        yield node


def _moved(path: str, places: Mapping[str, str]) -> str | None:
    """A path or file:// address after the move; None where it stays."""
    folder = local_folder(path)
    new = places.get(relative_path(PurePath(path if folder is None else folder)))
    if folder is None or new is None:
        return new
    prefix = next((name for name in FORMATS if path.startswith(name)), "")
    return f"{prefix}file://{new}"


def _written(path: str, style: str | None) -> str:
    """A path as YAML; a block of lines ends with a line end, which belongs to it."""
    quoted = (
        path if style is None and PLAIN.fullmatch(path) else json.dumps(path, ensure_ascii=False)
    )
    return f"{quoted}\n" if style in ("|", ">") else quoted
