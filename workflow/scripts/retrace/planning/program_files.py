"""The library files that a program consists of: an edit of any of them runs its rule again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]
"""The folder of the programs and of the library."""
ROOT = SCRIPTS.parents[1]
"""The folder of the workflow."""
PAGE_TEMPLATE = SCRIPTS / "retrace" / "reporting" / "page.html.jinja"
"""The template of the report and of the page of a comparison."""
FAMILIES_FILE = SCRIPTS / "retrace" / "config" / "families.py"
LAYER_FORMATS_FILE = SCRIPTS / "retrace" / "storage" / "layer_formats.py"
"""Both name parts of the library as text: "module:object"."""
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]*))",
    re.MULTILINE,
)
"""An import statement: `from` which module, what; or `import` which modules."""
IMPORTS_ITS_MODULES = "iter_modules(__path__)"
"""How a package finds and imports all of its modules by itself, such as the metrics."""
USED_PART = re.compile(r'\.load(?:_all)?\("(\w+)"\)|\bfamily\.(own_files)\b')
"""Use of a part that the entry of a family names."""
NAMED_PART = re.compile(r'^    (\w+)=(?:"[\w.]+[:"]|[^\n]*[{(]$)', re.MULTILINE)
"""The first line of a part in the entry of a family."""
MODULE = re.compile(r'"(retrace\.[\w.]+)[:"]')


def program_files(name: str) -> list[Path]:
    """The program NAME.py first, then all library files that it imports, sorted."""
    program = SCRIPTS / f"{name}.py"
    files: set[Path] = set()
    waiting = [program]
    while waiting:
        new = set(_imported(waiting.pop())) - files
        files |= new
        waiting += new
    return [program, *sorted(files - {program})]


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Files of this project that one file imports, anywhere in it, or loads by name."""
    text = path.read_text() if path.is_file() else ""
    names = [*_names(text), *([] if path == FAMILIES_FILE else _named_parts(text))]
    files = [file for name in names for file in _files(name)]
    if IMPORTS_ITS_MODULES in text and path.name == "__init__.py":
        files += sorted(file for file in path.parent.glob("*.py") if file != path)
    return tuple(dict.fromkeys(files))


@cache
def _modules() -> dict[str, Path]:
    """Every file of the programs and the library by its dotted name, packages by __init__.py."""
    files = {}
    for file in SCRIPTS.rglob("*.py"):
        parts = file.relative_to(SCRIPTS).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def _names(text: str) -> Iterator[str]:
    """Dotted names that may be modules: for `from a import b` both a and a.b.

    A search for lines, because parsing two hundred files would take a second at every start. Text
    that only looks like an import, as in a docstring, names no file. All imports are absolute.
    """
    for base, listed, plain in IMPORT.findall(text):
        parts = (part.split() for part in (listed or plain).strip("()").split(","))
        names = [words[0] for words in parts if words]
        if base:
            yield base
            names = [f"{base}.{name}" for name in names]
        yield from names


def _named_parts(text: str) -> Iterator[str]:
    """Modules that a file loads through the entries of the families, such as all builders."""
    for fields in USED_PART.findall(text):
        yield from _modules_by_part().get("".join(fields), ())


@cache
def _modules_by_part() -> dict[str, list[str]]:
    """By field of the entries of families and layer formats the modules that are named there."""
    modules: dict[str, list[str]] = {}
    text = FAMILIES_FILE.read_text() + LAYER_FORMATS_FILE.read_text()
    fields = list(NAMED_PART.finditer(text))
    ends = [field.start() for field in fields[1:]] + [len(text)]
    for field, end in zip(fields, ends, strict=True):
        modules.setdefault(field[1], []).extend(MODULE.findall(text[field.start() : end]))
    return modules


@cache
def _files(name: str) -> tuple[Path, ...]:
    """The file of a module and the __init__.py of every package above it."""
    parts = name.split(".")
    dotted = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return tuple(_modules()[module] for module in dotted if module in _modules())
