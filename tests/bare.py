"""Selects the tests that mention what .ci/bare hides: `pytest -p tests.bare`.

A test mentions it in its own code, in its markers or fixtures, or in the code of its file outside
tests: helpers, constants. Long integration tests that have nothing to do with it do not run twice.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

HIDDEN = re.compile(
    "apptainer|singularity|container|browser|chrom|slurm|sbatch"
    r"|shared_dir|realdata|\.\./shared|[\"']shared[\"']|fib25_sample",
    re.IGNORECASE,
)
"""Names of the hidden programs, of the fixtures and markers about them, and of ../shared.

The volumes of the dataset `fib25_sample` are files in ../shared.
"""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Files without a mention are not even imported."""
    if collection_path.suffix == ".py" and not HIDDEN.search(collection_path.read_text()):
        return True
    return None


def outside_of_tests(module: ModuleType, tests: list[pytest.Function]) -> str:
    """The source of a file without its tests."""
    text = inspect.getsource(module)
    for test in tests:
        text = text.replace(inspect.getsource(test.function), "")
    return text


def mentions(test: pytest.Function) -> bool:
    """Whether the code of a test or one of its markers or fixtures mentions what is hidden."""
    names = [mark.name for mark in test.iter_markers()] + list(test.fixturenames)
    return bool(HIDDEN.search(" ".join([inspect.getsource(test.function), *names])))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Deselects the tests of a file that do not mention it, unless the rest of the file does."""
    by_module: dict[ModuleType, list[pytest.Function]] = {}
    for test in items:
        by_module.setdefault(test.module, []).append(test)
    whole = {m for m, tests in by_module.items() if HIDDEN.search(outside_of_tests(m, tests))}
    chosen = [test for test in items if test.module in whole or mentions(test)]
    config.hook.pytest_deselected(items=[test for test in items if test not in chosen])
    items[:] = chosen
