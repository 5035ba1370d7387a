"""Reads Python files that consist of assignments, without running them.

Configuration files of ELEKTRONN use names, numbers, text, lists, tuples and dicts, arithmetic on
them, `range`, `dict`, list comprehensions and `del`. Anything else is an error that names the line.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.limits import (
    DEPTH,
    EXPRESSION_ELEMENTS,
    EXPRESSION_NUMBER,
    EXPRESSION_STEPS,
    TEXT_BYTES,
)
from retrace.reading import DamagedError, cause, read_bytes, reading_content

Names = dict[str, Any]

WIDE = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})")
"""Text formats that would pad to thousands of characters."""

ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
CALLS: dict[str, Callable[..., Any]] = {
    "range": lambda *args: list(range(*args)),
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "len": len,
}
"""Functions that only convert their arguments."""


def read_assignments(path: Path) -> Names:
    """The values of all names at the end of a file; ConfigError for anything but assignments."""
    try:
        tree = ast.parse(read_bytes(path, TEXT_BYTES).decode(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except DamagedError as error:
        raise ConfigError(f"{path} {error.fault}; shorten it") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path} is not a Python file: {cause(error)}") from error
    reader = _Reader(path)
    with reading_content(path, "correct the file"):
        for statement in tree.body:
            reader.run(statement)
    return reader.names


class _Reader:
    """The values of the names that were assigned so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, Names()
        self._left = EXPRESSION_STEPS
        self._known: dict[int, tuple[int, int]] = {}
        """By id of a list, tuple or dict its elements, with those inside them, and its levels."""
        self._kept: list[Any] = []
        """These values, so that no other gets the id of one."""

    def run(self, statement: ast.stmt) -> None:
        """Evaluates one statement."""
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # a docstring
        if isinstance(statement, ast.Assign):
            value = self.value(statement.value)
            for target in statement.targets:
                self._bind(target, value, self.names)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            before = self._name(statement.target)
            self.names[statement.target.id] = self._arithmetic(
                statement, statement.op, before, self.value(statement.value)
            )
        elif isinstance(statement, ast.Delete):
            for target in statement.targets:
                # In Python 2, loop variables existed after a comprehension; here they never do.
                if isinstance(target, ast.Name):
                    self.names.pop(target.id, None)
        elif not isinstance(statement, ast.Pass):
            raise self._refusal(statement, "")

    def _refusal(self, node: ast.AST, why: str) -> ConfigError:
        line = getattr(node, "lineno", 0)
        text = _first_line(node)
        return ConfigError(
            f"{self.path}, line {line}: `{text}`{why} is not read, because configuration files are "
            "not run. Write plain values: `name = value`, with numbers, text, lists and dicts"
        )

    def _bind(self, target: ast.expr, value: Any, names: Names) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
            return
        if not isinstance(target, (ast.Tuple, ast.List)) or not isinstance(value, (list, tuple)):
            raise self._refusal(target, " as the target of an assignment")
        if len(target.elts) != len(value):
            raise self._refusal(target, f" for {len(value)} values")
        for part, element in zip(target.elts, value, strict=True):
            self._bind(part, element, names)

    def _name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            raise self._refusal(node, ", a name without a value in the lines before,")
        return self.names[node.id]

    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""
        self._spend(node, 1)
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None:
            raise self._refusal(node, "")
        return self._bounded(node, read(node))

    def _spend(self, node: ast.AST, steps: int) -> None:
        """ConfigError once a file has asked for too much work in total."""
        self._left -= steps
        if self._left < 0:
            raise self._refusal(node, f", which needs more than {EXPRESSION_STEPS} steps,")

    def _charge(self, node: ast.AST, *values: Any) -> None:
        """Counts the work of an operation that looks at all elements of values, in all lists."""
        self._spend(node, sum(self._size(node, value)[0] for value in values))

    def _bounded(self, node: ast.AST, value: Any) -> Any:
        """A value; ConfigError for a long one, or one with many elements in all lists inside it."""
        if isinstance(value, (list, tuple, str, dict)) and len(value) > EXPRESSION_ELEMENTS:
            raise self._refusal(node, f", of more than {EXPRESSION_ELEMENTS} elements,")
        elements, levels = self._size(node, value)
        if elements > EXPRESSION_STEPS or levels > DEPTH:
            most = f"{EXPRESSION_STEPS} elements or {DEPTH} levels"
            raise self._refusal(node, f", whose lists have more than {most},")
        return value

    def _size(self, node: ast.AST, value: Any) -> tuple[int, int]:
        """Elements of a value with those inside them, or characters; and levels of lists."""
        if not isinstance(value, (list, tuple, dict)):
            return len(value) + 1 if isinstance(value, str) else 1, 0
        if id(value) not in self._known:
            self._spend(node, len(value))
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            sizes = [self._size(node, part) for part in parts]
            self._kept.append(value)
            levels = 1 + max((inner for _, inner in sizes), default=0)
            self._known[id(value)] = 1 + sum(size for size, _ in sizes), levels
        return self._known[id(value)]

    def _constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, (int, float, str, bool, type(None))):
            raise self._refusal(node, "")
        return node.value

    def _list(self, node: ast.List | ast.Tuple) -> list[Any]:
        return [self.value(element) for element in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._list(node))

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        if any(key is None for key in node.keys):
            raise self._refusal(node, "")
        keys = [self.value(key) for key in node.keys if key is not None]
        self._charge(node, keys)
        return dict(zip(keys, map(self.value, node.values), strict=True))

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, (ast.USub, ast.UAdd)) and isinstance(value, (int, float)):
            return -value if isinstance(node.op, ast.USub) else value
        raise self._refusal(node, "")

    def _binop(self, node: ast.BinOp) -> Any:
        return self._arithmetic(node, node.op, self.value(node.left), self.value(node.right))

    def _arithmetic(self, node: ast.AST, op: ast.operator, left: Any, right: Any) -> Any:
        """The result of an operation; ConfigError before a huge value would be computed."""
        compute = ARITHMETIC.get(type(op))
        numbers = all(isinstance(v, (int, float)) for v in (left, right))
        if compute is None or (isinstance(op, ast.Pow) and not _is_small_power(left, right)):
            raise self._refusal(node, "")
        if isinstance(op, ast.Mult) and not numbers:
            long, times = (right, left) if isinstance(left, int) else (left, right)
            is_counted = isinstance(long, (list, tuple, str)) and isinstance(times, int)
            if not is_counted or len(long) * times > EXPRESSION_ELEMENTS:
                raise self._refusal(node, "")
        if isinstance(op, ast.Mod) and isinstance(left, str) and WIDE.search(left):
            raise self._refusal(node, "")
        if isinstance(op, ast.Mod):
            self._charge(node, right)
        try:
            value = compute(left, right)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise self._refusal(node, f" ({error})") from None
        if isinstance(value, int) and abs(value) > EXPRESSION_NUMBER:
            raise self._refusal(node, f", a number above {EXPRESSION_NUMBER:.0e},")
        return self._bounded(node, value)

    def _call(self, node: ast.Call) -> Any:
        signature = CALLS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if signature is None or any(keyword.arg is None for keyword in node.keywords):
            raise self._refusal(node, "")
        args = [self.value(arg) for arg in node.args]
        options = {str(k.arg): self.value(k.value) for k in node.keywords}
        far = any(not isinstance(a, int) or abs(a) > EXPRESSION_ELEMENTS for a in args)
        if signature is CALLS["range"] and far:
            raise self._refusal(node, "")
        self._charge(node, args, options)
        try:
            return signature(*args, **options)
        except (TypeError, ValueError) as error:
            raise self._refusal(node, f" ({error})") from None

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        self._spend(node, len(self.names))
        outside = dict(self.names)
        turns = islice(self._turns(node, node.generators), EXPRESSION_ELEMENTS + 1)
        elements = [self.value(node.elt) for _ in turns]
        self.names = outside
        return elements

    def _turns(self, node: ast.ListComp, loops: list[ast.comprehension]) -> Iterator[None]:
        """Yields once for each turn of nested loops, with the loop variables assigned."""
        if not loops:
            yield
            return
        first = loops[0]
        if first.ifs or first.is_async:
            raise self._refusal(node, "")
        values = self.value(first.iter)
        if not isinstance(values, (list, tuple, str)):
            raise self._refusal(node, "")
        for value in values:
            self._spend(node, 1)
            self._bind(first.target, value, self.names)
            yield from self._turns(node, loops[1:])

    def _subscript(self, node: ast.Subscript) -> Any:
        values, key = self.value(node.value), self.value(node.slice)
        self._charge(node, key)
        try:
            return values[key]
        except (TypeError, LookupError) as error:
            raise self._refusal(node, f" ({error})") from None


def _is_small_power(base: Any, exponent: Any) -> bool:
    if not all(isinstance(v, (int, float)) for v in (base, exponent)):
        return False
    return abs(base) <= 1e4 and abs(exponent) <= 64


SHOWN = 100
"""Characters of an expression that a message shows."""


def _first_line(node: ast.AST) -> str:
    """The beginning of a statement or expression, for messages."""
    if not isinstance(node, (ast.stmt, ast.expr)):
        return ""
    line = ast.unparse(node).splitlines()[0]
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
