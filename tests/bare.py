"""Selects the tests that mention what .ci/bare hides: `pytest -p tests.bare`.

A test mentions it in its own code, in its markers or fixtures, or in what it uses of its file:
helpers, constants, imports. Tests that have nothing to do with it do not run twice, and neither do
plans with a stand-in for Apptainer, which is found before any other.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

APPTAINER = re.compile("apptainer|singularity|container", re.IGNORECASE)
OTHERS = re.compile(
    r"browser|chrom|slurm|sbatch|shared_dir|realdata|\.\./shared|[\"']shared[\"']|fib25_sample",
    re.IGNORECASE,
)
"""Names of the hidden programs, of the fixtures and markers about them, and of ../shared.

The volumes of the dataset `fib25_sample` are files in ../shared.
"""
STAND_IN = "planning_apptainer"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Files without a mention are not even imported."""
    if collection_path.suffix == ".py":
        text = collection_path.read_text()
        if not APPTAINER.search(text) and not OTHERS.search(text):
            return True
    return None


@cache
def parts(module: ModuleType) -> dict[str, tuple[str, set[str]]]:
    """For each name that a file defines or imports: the code, and the names in it."""
    text = inspect.getsource(module)
    found: dict[str, tuple[str, set[str]]] = {}
    for node in ast.parse(text).body:
        names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        fixtures = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
        code = ast.get_source_segment(text, node) or ""
        for name in defined(node):
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            found[name] = (name, set()) if is_import else (code, names | fixtures)
    return found


def defined(node: ast.stmt) -> set[str]:
    """The names that a statement of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    stored = (one for one in ast.walk(node) if isinstance(one, ast.Name))
    return {one.id for one in stored if isinstance(one.ctx, ast.Store)}


def code_of(test: pytest.Function) -> str:
    """The code of a test, with decorators, and of all that it uses of its file."""
    known = parts(test.module)
    own = inspect.getsource(test.function)
    new = {one.id for one in ast.walk(ast.parse(own)) if isinstance(one, ast.Name)}
    new |= set(test.fixturenames)
    used: set[str] = set()
    while new := (new & known.keys()) - used:
        used |= new
        new = set[str]().union(*(known[name][1] for name in new))
    return "\n".join([own, *(known[name][0] for name in sorted(used))])


def mentions(test: pytest.Function) -> bool:
    """Whether the code of a test or one of its markers or fixtures mentions what is hidden."""
    names = [mark.name for mark in test.iter_markers()] + list(test.fixturenames)
    text = " ".join([code_of(test), *names])
    stood_in = STAND_IN in test.fixturenames
    return bool(OTHERS.search(text) or (APPTAINER.search(text) and not stood_in))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Deselects the tests that do not mention it."""
    chosen = [test for test in items if mentions(test)]
    config.hook.pytest_deselected(items=[test for test in items if test not in chosen])
    items[:] = chosen
