"""Compiled functions: kept where that is possible, and never an outdated one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"

PROGRAM = """
import retrace.compiled
if {nowhere}:
    retrace.compiled._Implementation._locator_classes = []
from doubling import double
print(double(21))
"""


@pytest.mark.parametrize("nowhere", [True, False])
def test_functions_compile_with_and_without_a_folder_to_keep_them(
    nowhere: bool, tmp_path: Path
) -> None:
    module = "from retrace.compiled import compiled\n@compiled\ndef double(x):\n    return 2 * x\n"
    (tmp_path / "doubling.py").write_text(module)
    paths = os.pathsep.join([str(SCRIPTS), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": ""}
    command = [sys.executable, "-c", PROGRAM.format(nowhere=nowhere)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    assert bool(list((tmp_path / "__pycache__").glob("*.nbc"))) is not nowhere


LEAF = """
from retrace.compiled import {kind}
FACTOR = {factor}
@{kind}
def times(x):
    return FACTOR * x
"""
MIDDLE = """
from retrace.compiled import compiled
from leaf import times
@compiled
def middle(x):
    return times(x) + 1
"""
TOP = """
from retrace.compiled import compiled
from middle import middle
from numbers_of import {constant}
@compiled
def top(x):
    return middle(x) + {constant}
"""


def write(folder: Path, kind: str = "compiled", factor: int = 2, constant: str = "A = 100") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "leaf.py").write_text(LEAF.format(kind=kind, factor=factor))
    (folder / "middle.py").write_text(MIDDLE)
    (folder / "top.py").write_text(TOP.format(constant=constant[0]))
    (folder / "numbers_of.py").write_text(f"{constant}\n")
    return folder


def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `top` as a new program would import it from `folder`."""
    names = ("leaf", "middle", "numbers_of", "top")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(sys, "dont_write_bytecode", True)
        module = importlib.import_module("top")
        for name in names:
            del sys.modules[name]
    return module


def test_kept_code_is_used_by_copies_and_only_while_all_that_it_is_made_of_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))

    def run(folder: Path) -> tuple[int, int]:
        """The result for 5, and how often it was loaded."""
        top = load(folder, monkeypatch).top
        return top(5), sum(top.stats.cache_hits.values())

    first = write(tmp_path / "first")
    assert run(first) == (111, 0)
    assert run(first) == (111, 1)
    assert run(write(tmp_path / "copy")) == (111, 1)
    assert run(write(first, factor=3)) == (116, 0), "a function two files away has changed"
    assert run(write(first, constant="A = 200")) == (211, 0), "a number of another file has changed"
    assert run(write(first, kind="inlined", factor=4)) == (121, 0)
    assert run(write(first)) == (111, 1)
