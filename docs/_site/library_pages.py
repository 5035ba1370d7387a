"""The pages of the library: each public function and class with its signature and docstring.

Read with griffe from the source, so no module is imported.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe


def library_pages(package: Path) -> dict[str, str]:
    """By path, one page for `package` and for each package in it, with all their modules."""
    root = griffe.load(package.name, search_paths=[str(package.parent)], docstring_parser=None)
    assert isinstance(root, griffe.Module)
    return {f"reference/library/{module.path}.md": _page(module) for module in _packages(root)}


def _packages(module: griffe.Module) -> Iterator[griffe.Module]:
    if not module.is_init_module:
        return
    yield module
    for inner in sorted(module.modules.values(), key=lambda inner: inner.path):
        yield from _packages(inner)


def _page(package: griffe.Module) -> str:
    parts = [f"# {package.path}", _docstring(package)]
    for module in sorted(package.modules.values(), key=lambda module: module.path):
        if not module.is_init_module:
            parts += [f"## {module.path}", _docstring(module), *_members(module)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(parent: griffe.Module | griffe.Class) -> Iterator[str]:
    """Heading, signature and docstring of each documented public member, in the file's order."""
    for member in parent.members.values():
        shown = member.kind in (griffe.Kind.CLASS, griffe.Kind.FUNCTION)
        if member.is_alias or not shown or member.name.startswith("_") or not member.docstring:
            continue
        level = "####" if isinstance(parent, griffe.Class) else "###"
        yield f"{level} {member.name}"
        yield f"```python\n{_signature(member)}\n```"
        yield _docstring(member)
        if isinstance(member, griffe.Class):
            yield from _members(member)


def _signature(member: griffe.Object | griffe.Alias) -> str:
    """The first lines of the definition, up to its docstring, as written."""
    first = member.docstring.lineno if member.docstring else None
    source = member.lines_collection[member.filepath]
    assert member.lineno is not None and first is not None
    return textwrap.dedent("\n".join(source[member.lineno - 1 : first - 1])).rstrip()


def _docstring(member: griffe.Object | griffe.Alias) -> str:
    return member.docstring.value if member.docstring else ""
