"""Joins modules of this library into one file, with which packaged networks run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from retrace.errors import DataError
from retrace.planning.program_files import SCRIPTS

LIBRARY = "retrace"
HEADER = '"""{title}"""\n\nfrom __future__ import annotations\n'


def single_file(module: str, title: str) -> str:
    """The source of `module`, such as retrace.networks.unet, and of all it imports of the library.

    Imports between these modules are removed; everything else stays, including comments. DataError
    where two modules define the same name, or import other than by `from MODULE import NAME`.
    """
    names = modules(module)
    texts = {name: _without_imports(name) for name in names}
    _check_names(names)
    sections = [f"\n\n# {'-' * 16} {name}\n\n{text.strip()}\n" for name, text in texts.items()]
    return HEADER.format(title=title) + "".join(sections)


def modules(module: str) -> list[str]:
    """The modules of the library that `module` needs, each after those that it imports."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for node in _own_imports(_tree(name)):
                visit(node.module or "")
            order.append(name)

    visit(module)
    return order


def _source(name: str) -> str:
    path = SCRIPTS.joinpath(*name.split(".")).with_suffix(".py")
    if not path.is_file():
        raise DataError(f"{name} is no module of the library; packages consist of single modules")
    return path.read_text()


def _tree(name: str) -> ast.Module:
    return ast.parse(_source(name), name)


def _own_imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """`from retrace.x import y` of a module, except what it does without on an ImportError."""
    optional = set(_optional_imports(tree))
    for node in ast.walk(tree):
        if node in optional:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == LIBRARY:
            if node not in tree.body or any(alias.asname for alias in node.names):
                raise DataError(f"{ast.unparse(node)}: is inside a function, or renames")
            yield node
        elif isinstance(node, ast.Import) and any(a.name.startswith(LIBRARY) for a in node.names):
            raise DataError(f"{ast.unparse(node)}: only `from MODULE import NAME` can be joined")


def _optional_imports(tree: ast.Module) -> Iterator[ast.AST]:
    """Imports inside `try: ... except ImportError: ...`, which a package keeps as they are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            caught = {ast.unparse(handler.type) for handler in node.handlers if handler.type}
            if "ImportError" in caught:
                yield from node.body


def _without_imports(name: str) -> str:
    """The text of a module without `from __future__` and imports of the library."""
    text = _source(name)
    tree = ast.parse(text)
    imports: list[ast.stmt] = [*_own_imports(tree)]
    imports += [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    removed = {row for node in imports for row in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = text.splitlines()
    return "\n".join(line for row, line in enumerate(lines, 1) if row not in removed)


def _check_names(names: Sequence[str]) -> None:
    """DataError if two modules define the same name: the later one would replace the other."""
    owner: dict[str, str] = {}
    for name in names:
        for defined in _definitions(_tree(name)):
            if owner.setdefault(defined, name) != name:
                raise DataError(
                    f"{owner[defined]} and {name} both define {defined}; rename one of them, so "
                    "that they can be joined"
                )


def _definitions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
