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
from retrace.reading import cause, read_bytes, reading_content

Names = dict[str, Any]

LONGEST_VALUE = 10_000
"""Most elements or characters that an expression may have."""
LARGEST_NUMBER = 10**18
"""Largest number that an expression may have; n_steps is often 10**12."""
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
        tree = ast.parse(read_bytes(path).decode(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
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
        text = ast.unparse(node).splitlines()[0] if isinstance(node, (ast.stmt, ast.expr)) else ""
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
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None:
            raise self._refusal(node, "")
        return self._bounded(node, read(node))

    def _bounded(self, node: ast.AST, value: Any) -> Any:
        if isinstance(value, (list, tuple, str, dict)) and len(value) > LONGEST_VALUE:
            raise self._refusal(node, f", of more than {LONGEST_VALUE} elements,")
        return value

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
        return {
            self.value(key): self.value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }

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
            if not isinstance(times, int) or len(long) * times > LONGEST_VALUE:
                raise self._refusal(node, "")
        if isinstance(op, ast.Mod) and isinstance(left, str) and WIDE.search(left):
            raise self._refusal(node, "")
        try:
            value = compute(left, right)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise self._refusal(node, f" ({error})") from None
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise self._refusal(node, f", a number above {LARGEST_NUMBER:.0e},")
        return self._bounded(node, value)

    def _call(self, node: ast.Call) -> Any:
        signature = CALLS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if signature is None or any(keyword.arg is None for keyword in node.keywords):
            raise self._refusal(node, "")
        args = [self.value(arg) for arg in node.args]
        options = {str(k.arg): self.value(k.value) for k in node.keywords}
        far = any(not isinstance(a, int) or abs(a) > LONGEST_VALUE for a in args)
        if signature is CALLS["range"] and far:
            raise self._refusal(node, "")
        try:
            return signature(*args, **options)
        except (TypeError, ValueError) as error:
            raise self._refusal(node, f" ({error})") from None

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        outside = dict(self.names)
        turns = islice(self._turns(node, node.generators), LONGEST_VALUE + 1)
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
            self._bind(first.target, value, self.names)
            yield from self._turns(node, loops[1:])

    def _subscript(self, node: ast.Subscript) -> Any:
        try:
            return self.value(node.value)[self.value(node.slice)]
        except (TypeError, LookupError) as error:
            raise self._refusal(node, f" ({error})") from None


def _is_small_power(base: Any, exponent: Any) -> bool:
    if not all(isinstance(v, (int, float)) for v in (base, exponent)):
        return False
    return abs(base) <= 1e4 and abs(exponent) <= 64
