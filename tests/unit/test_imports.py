"""Imports point down: programs, the work of each verb, planning, science, config, data, basics."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"

LAYERS = (
    "training inference segmentation evaluation alignment viewing reporting packaging provenance"
    " synthetic shapes",
    "planning",
    "networks targets losses augment checkpoints",
    "config",
    "znn elektronn",
    "storage",
    "formats",
    "remote",
    "geometry errors files progress device command_line union_find compiled displacement"
    " settings_model setting_types job records output_lock reading redaction replacement"
    " relative_paths many_files machine_limits limits cropping",
)
"""Packages and modules of the library, from top to bottom. One imports its own layer and below."""

LEVELS = {name: level for level, names in enumerate(reversed(LAYERS)) for name in names.split()}
PROGRAM_LEVEL = len(LAYERS)

TORCH_FREE = {
    *("config", "planning", "znn", "elektronn", "storage", "formats", "remote"),
    *("geometry", "errors", "files", "progress", "settings_model", "setting_types", "job"),
    *("records", "output_lock", "reading", "limits", "redaction", "cropping"),
}
"""They run where the workflow is planned, which has no torch."""


def module_name(file: Path) -> str:
    """The name under which Python imports a file of workflow/scripts."""
    return ".".join(file.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(p): p for p in SCRIPTS.rglob("*.py") if "legacy" not in p.parent.parts}


def package(module: str) -> str:
    """The package or module of the library that a module belongs to; empty for programs."""
    return module.split(".")[1] if module.startswith("retrace.") else ""


def level(module: str) -> int:
    """The layer of a module: 0 is the lowest."""
    if module == "retrace":
        return 0
    return LEVELS[package(module)] if package(module) else PROGRAM_LEVEL


def imports_in(tree: ast.AST, *, for_types: bool) -> Iterator[str]:
    """Names that a module imports, also inside functions; with or without TYPE_CHECKING blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports_in(node, for_types=for_types)


@cache
def imports(module: str, for_types: bool = True) -> frozenset[str]:
    """What a module imports: modules, or names in packages of others."""
    tree = ast.parse(FILES[module].read_text())
    names = imports_in(tree, for_types=for_types)
    # `from retrace.files import digest` imports the module retrace.files.
    return frozenset(n.rpartition(".")[0] if is_defined_in_module(n) else n for n in names)


def is_defined_in_module(name: str) -> bool:
    """Whether a dotted name is a function, class or value in a module of ours."""
    return name not in FILES and name.rpartition(".")[0] in FILES


def reached(module: str) -> set[str]:
    """Everything that is imported with a module, directly or through the library."""
    names, waiting = {module}, [module]
    while waiting:
        new = imports(waiting.pop(), for_types=False) - names
        names |= new
        waiting += [name for name in new if name in FILES]
    return names


def roots(names: Iterable[str]) -> set[str]:
    """The first parts of dotted names: the packages to install."""
    return {name.split(".")[0] for name in names}


def imported(module: str, where: Callable[[str], bool]) -> list[str]:
    """`MODULE imports NAME` for each module of ours that `module` imports and `where` is true."""
    return [f"{module} imports {n}" for n in sorted(imports(module) & FILES.keys()) if where(n)]


def test_every_package_has_a_layer() -> None:
    assert {package(module) for module in FILES} - {""} == set(LEVELS)


def test_imports_point_down() -> None:
    upward = [line for m in FILES for line in imported(m, lambda n, m=m: level(n) > level(m))]

    assert upward == []


def test_programs_do_not_import_programs() -> None:
    programs = [module for module in FILES if level(module) == PROGRAM_LEVEL]
    between = [line for p in programs for line in imported(p, lambda n: n in programs)]

    assert between == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: imports(module, for_types=False) - {module} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_planning_and_data_do_not_need_torch() -> None:
    modules = [module for module in FILES if package(module) in TORCH_FREE]

    assert [module for module in modules if "torch" in roots(reached(module))] == []


def test_only_rules_import_snakemake() -> None:
    assert [module for module in FILES if "snakemake" in roots(imports(module))] == []


def test_settings_of_losses_targets_and_augmentations_do_not_need_torch() -> None:
    # Settings load these modules by name, which the imports above do not show.
    code = "import sys; sys.modules['torch'] = None; import retrace.config.json_schemas"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(SCRIPTS)})


def test_planning_starts_with_what_snakemake_brings() -> None:
    # Clusters often have Snakemake alone on the node that plans; the rest is in the images.
    absent = "boto3 bson cloudvolume h5py matplotlib numcodecs numpy scipy tifffile torch tqdm zarr"
    modules = [m for m in FILES if package(m) == "planning"]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent.split()}))\n"
    code += "".join(f"import {module}\n" for module in modules)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(SCRIPTS)})
