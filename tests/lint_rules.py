"""Checks the names in rule files: `python tests/lint_rules.py Snakefile`.

Snakemake's own parser turns each file into Python. An included file takes the place of its
`include:`, because all files share one namespace. ruff finds undefined names and unused local
variables. The symbol table finds functions, imports and variables that no rule file uses.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from snakemake import parser

INCLUDE = re.compile(r'(\s*)workflow\.include\( *"([^"]+)"')
"""The first line of a compiled `include:`; the call ends with the next closing bracket."""

SNAKEMAKE_NAMES = """
    access ancient before_update branch checkpoints collect config directory ensure evaluate exists
    expand flag from_queue gather github gitfile gitlab glob_wildcards local lookup multiext output
    params parse_input pipe protected repeatable report resources rules scatter service shell
    storage subpath temp threads touch unpack update wildcards workflow
"""
"""Names that Snakemake defines for every rule file."""


@dataclass(frozen=True)
class Line:
    """A line of compiled Python, with the file and line number that it comes from."""

    text: str
    file: Path
    number: int


@dataclass(frozen=True)
class Finding:
    """A message about a line of the joined Python; rows count from 1."""

    row: int
    message: str


def compiled(file: Path) -> list[Line]:
    """A rule file as Python; its `include:` statements are calls of workflow.include."""
    path = SimpleNamespace(get_path_or_uri=lambda secret_free: str(file))
    workflow = SimpleNamespace(sourcecache=SimpleNamespace(open=lambda _: file.open()))
    numbers: dict[int, int] = {}
    text, _ = parser.parse(path, workflow, numbers)
    return [Line(t, file, numbers.get(i, 0)) for i, t in enumerate(text.splitlines(), start=1)]


def joined(file: Path) -> Iterator[Line]:
    """A rule file as Python, with the lines of included files in the places of their `include:`."""
    lines = iter(compiled(file))
    for line in lines:
        include = INCLUDE.match(line.text)
        if include is None:
            yield line
            continue
        indent, path = include.groups()
        for included in joined(file.parent / path):
            yield Line(indent + included.text, included.file, included.number)
        next(rest for rest in lines if ")" in rest.text)


def ruff_findings(source: str) -> Iterator[Finding]:
    """Undefined names, unused local variables, and whatever else ruff's F rules (pyflakes) find."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F", "--ignore=F401"]
    options = [
        f"--config=builtins={json.dumps(SNAKEMAKE_NAMES.split())}",
        "--output-format=json",
        "--exit-zero",
    ]
    report = subprocess.run(
        [*ruff, *options, "-"], input=source, capture_output=True, text=True, check=True
    ).stdout
    for finding in json.loads(report):
        yield Finding(finding["location"]["row"], finding["message"])


def global_names_used(table: symtable.SymbolTable) -> set[str]:
    """Names of the module's namespace that a scope and the scopes inside it read."""
    is_module = table.get_type() == "module"
    symbols = (s for s in table.get_symbols() if s.is_referenced() and (is_module or s.is_global()))
    names = {symbol.get_name() for symbol in symbols}
    for inner in table.get_children():
        names |= global_names_used(inner) - {inner.get_name()}  # recursion is not a use
    return names


def rows_of_definitions(tree: ast.Module) -> dict[str, int]:
    """The row in which each name is defined first, outer scopes before inner ones."""
    rows: dict[str, int] = {}
    for node in ast.walk(tree):  # breadth first
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            rows.setdefault(node.name, node.lineno)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                rows.setdefault((alias.asname or alias.name).split(".")[0], node.lineno)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            rows.setdefault(node.id, node.lineno)
    return rows


def unused_definitions(source: str) -> Iterator[Finding]:
    """Functions, imports and variables of the module that no line uses."""
    module = symtable.symtable(source, "rules", "exec")
    used = global_names_used(module)
    rows = rows_of_definitions(ast.parse(source))
    for symbol in module.get_symbols():
        name = symbol.get_name()
        is_defined = symbol.is_assigned() or symbol.is_imported()
        if is_defined and name not in used and not name.startswith("__"):  # __rule_NAME
            yield Finding(rows[name], f"`{name}` is defined but no rule file uses it")


def findings(snakefile: Path) -> Iterator[str]:
    """One line for each finding, FILE:LINE: MESSAGE."""
    lines = list(joined(snakefile))
    source = "\n".join(line.text for line in lines)
    for finding in (*ruff_findings(source), *unused_definitions(source)):
        line = lines[finding.row - 1]
        yield f"{line.file}:{line.number}: {finding.message}"


def main(argv: list[str]) -> int:
    """Prints the findings; exit code 1 if there are any."""
    messages = sorted(m for snakefile in argv for m in findings(Path(snakefile)))
    print("\n".join(messages) if messages else "Rule files: no undefined or unused names")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
