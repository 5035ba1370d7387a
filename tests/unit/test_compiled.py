"""Compiled functions: kept where that is possible, and never an outdated one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"

PROGRAM = """
from numba.core import caching
if {nowhere}:
    caching.CacheImpl._locator_classes = []
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
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    command = [sys.executable, "-c", PROGRAM.format(nowhere=nowhere)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    assert bool(list(tmp_path.rglob("*.nbc"))) is not nowhere


def _compiled_names(tree: ast.Module) -> set[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if _decorators(f) & {"compiled", "inlined"}}


def _decorators(function: ast.FunctionDef) -> set[str]:
    return set(map(ast.unparse, function.decorator_list))


def test_no_kept_function_calls_a_compiled_one_of_another_file() -> None:
    # numba drops what it kept when the file of a function changes, not when that of a callee does.
    texts = {path: path.read_text() for path in SCRIPTS.rglob("*.py")}
    trees = {p: ast.parse(text) for p, text in texts.items() if "import compiled" in text}
    of_file = {path: _compiled_names(tree) for path, tree in trees.items()}
    everywhere = set.union(*of_file.values())
    assert len(everywhere) > 10
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in of_file[path]:
                called = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                assert called & everywhere <= of_file[path], f"{path}: {node.name}"
