"""NAME=PATH on the command line: which volume, or which network, a file belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrace.errors import ConfigError


def named_paths(items: Sequence[str]) -> dict[str, Path]:
    """Return the path of each name; ConfigError for an item that is not NAME=PATH."""
    found = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"{item!r} on the command line: NAME=PATH is needed")
        found[name] = Path(path)
    return found
