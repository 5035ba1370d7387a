"""Which library files a program is made of, so that an edit of any of them reruns its rule."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
"""The folder of the programs, beside which the library lies."""


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
    tree = ast.parse(path.read_text(), str(path)) if path.is_file() else ast.Module([], [])
    names = {name for node in _statements(tree.body) for name in _names(node, path)}
    return tuple(file for name in names for file in _files(name))


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All statements, also those inside others; expressions, which are most of a file, are left."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, inner, ()))


@cache
def _all_files() -> frozenset[Path]:
    """Every file of the programs and the library."""
    return frozenset(SCRIPTS.rglob("*.py"))


def _names(node: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names that may be modules: of `from a import b` both a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = path.relative_to(SCRIPTS).parts[: -node.level]
            base = ".".join([*package, *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[Path]:
    """The file of a module and the __init__.py of every package above it."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        stem = SCRIPTS.joinpath(*parts[:length])
        for file in (stem / "__init__.py", stem.with_suffix(".py")):
            if file in _all_files():
                yield file
