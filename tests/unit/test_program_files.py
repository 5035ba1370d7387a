"""The files of the library that a program consists of."""

from __future__ import annotations

import ast
from pathlib import Path

from retrace.planning.program_files import (
    FAMILIES_FILE,
    SCRIPTS,
    _imported,
    _modules_by_part,
    _named_parts,
    program_files,
)


def imported_files(program: str) -> set[str]:
    return {path.relative_to(SCRIPTS).as_posix() for path in program_files(program)}


def test_a_program_consists_of_the_parts_that_families_name() -> None:
    assert "retrace/config/znn_network.py" in imported_files("train")
    assert "retrace/config/znn_network.py" not in imported_files("fetch")
    parts = _modules_by_part()
    assert "retrace.networks.builders" in parts["builder"]
    networks = {"retrace/networks/unet.py", "retrace/networks/seamless.py"}
    assert networks <= imported_files("train")
    assert {"retrace.losses.lsd_malis", "retrace.losses.znn_costs"} <= set(parts["losses"])
    assert "retrace/losses/malis.py" in imported_files("train")


def test_a_program_consists_of_its_imports_at_any_depth() -> None:
    files = imported_files("train")

    assert {"train.py", "retrace/errors.py", "retrace/networks/unet.py"} <= files
    assert "retrace/viewing/scene.py" not in files
    assert "retrace/formats/hdf5.py" in files  # through volumes only
    # A package that finds its modules by itself is made of all of them.
    assert "retrace/evaluation/metrics/segment_rand.py" in imported_files("evaluate")


def parsed_imports(path: Path) -> set[str]:
    """Modules of the library that Python's own parser finds in a file."""
    imports: set[str] = set()
    if path.name == "__init__.py" and "iter_modules(__path__)" in path.read_text():
        package = ".".join(path.parent.relative_to(SCRIPTS).parts)
        modules = (file.stem for file in path.parent.glob("*.py") if file != path)
        imports |= {f"{package}.{name}" for name in modules}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            imports |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {n for n in imports if SCRIPTS.joinpath(*n.split(".")).with_suffix(".py").is_file()}


def test_imports_resolve_as_in_python() -> None:
    for file in SCRIPTS.rglob("*.py"):
        text = "" if file == FAMILIES_FILE else file.read_text()
        names = {*parsed_imports(file), *_named_parts(text)}
        expected = {f"{name.replace('.', '/')}.py" for name in names}
        imported = {one.relative_to(SCRIPTS).as_posix() for one in _imported(file)}
        assert expected == {name for name in imported if not name.endswith("__init__.py")}, file
