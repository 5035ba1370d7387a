"""Which library files a program is made of, so that an edit of any of them reruns its rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]
"""The folder of the programs, beside which the library lies."""
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]*))",
    re.MULTILINE,
)
"""An import's line or lines: where from, what; or what as a whole."""
IMPORTS_ITS_MODULES = "iter_modules(__path__)"
"""How a package finds and imports all of its modules by itself, such as the metrics."""


def program_files(name: str) -> list[Path]:
    """The program NAME.py first, then all files of the library that it imports, sorted."""
    program = SCRIPTS / f"{name}.py"
    found: set[Path] = set()
    waiting = [program]
    while waiting:
        new = set(_imported(waiting.pop())) - found
        found |= new
        waiting += new
    return [program, *sorted(found - {program})]


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Files of this project that one file imports, wherever in it the import stands."""
    text = path.read_text() if path.is_file() else ""
    files = [file for name in _names(text) for file in _files(name)]
    if IMPORTS_ITS_MODULES in text and path.name == "__init__.py":
        files += sorted(file for file in path.parent.glob("*.py") if file != path)
    return tuple(dict.fromkeys(files))


@cache
def _all_files() -> frozenset[Path]:
    """Every file of the programs and the library."""
    return frozenset(SCRIPTS.rglob("*.py"))


def _names(text: str) -> Iterator[str]:
    """Dotted names that may be modules: of `from a import b` both a and a.b.

    Found by their lines: to parse the two hundred files would take every start a second. What only
    looks like an import, as in a docstring, names no file or does no harm. Ours are all absolute.
    """
    for base, listed, plain in IMPORT.findall(text):
        parts = (part.split() for part in (listed or plain).strip("()").split(","))
        names = [words[0] for words in parts if words]
        if base:
            yield base
            names = [f"{base}.{name}" for name in names]
        yield from names


@cache
def _files(name: str) -> tuple[Path, ...]:
    """The file of a module and the __init__.py of every package above it."""
    parts = name.split(".")
    stems = [SCRIPTS.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = (file for stem in stems for file in (stem / "__init__.py", stem.with_suffix(".py")))
    return tuple(file for file in files if file in _all_files())
