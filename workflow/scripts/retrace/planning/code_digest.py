"""Digests of the code that computes a result: of Python and YAML without their comments."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from retrace.config.yaml_files import read_yaml
from retrace.files import atomic_write, digest
from retrace.reading import json_if_intact

MEMORY = Path("work/contents/code.json")
"""Remembers the digest of each version of a file, because parsing all of them takes a second."""

PROSE = ("description", "help")
"""Arguments that only explain: of settings, and of options on the command line."""


def code_digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """By path below `root` 8 hex digits of each file's code."""
    memory = _memory()
    known = dict(memory)
    digests = {}
    for file in files:
        content = file.read_bytes()
        key = hashlib.sha256(content).hexdigest()[:16] + file.suffix
        if key not in known:
            known[key] = _digest_of(file, content)
        digests[file.resolve().relative_to(root.resolve()).as_posix()] = known[key]
    if known != memory:
        memory.update(known)
        with suppress(OSError):  # a read-only folder costs time, not the result
            atomic_write(MEMORY, json.dumps(memory))
    return digests


@cache
def _memory() -> dict[str, str]:
    return json_if_intact(MEMORY)


def _digest_of(file: Path, content: bytes) -> str:
    if file.suffix == ".py":
        return _code_digest(content)
    return digest(read_yaml(file) if file.suffix == ".yaml" else content.decode())[:8]


def _code_digest(content: bytes) -> str:
    tree = ast.parse(content)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # `...` keeps a body that was a docstring alone
            kept = [one for one in body if not _is_text(one)]
            node.body = kept or [ast.Expr(ast.Constant(...))]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            node.keywords = [word for word in node.keywords if word.arg not in PROSE]
    return digest(ast.unparse(tree))[:8]


def _is_text(node: ast.stmt) -> bool:
    """A docstring, or any other statement that is nothing but a string."""
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)  # type: ignore[attr-defined]
