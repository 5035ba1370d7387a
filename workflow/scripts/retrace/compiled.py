"""Compiles functions over arrays, once for each machine: later programs load the machine code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from numbers import Number
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

import numba
from numba.core import caching
from numba.core.dispatcher import Dispatcher

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function`, compiled when it is first called with such types of arguments; frees the GIL.

    The machine code is kept in NUMBA_CACHE_DIR, which clones may share, else next to the module,
    else in the user's cache folder. Where none can be written, as in an image without a home
    folder, each program compiles again. Kept code is used while the function's file is the same,
    and the compiled functions and numbers that this file imports are the same.
    """
    return _compiled(function, inline="never")


def inlined(function: Function) -> Function:
    """Like `compiled`, but the code becomes part of each function that calls it."""
    return _compiled(function, inline="always")


def _compiled(function: Function, inline: Literal["never", "always"]) -> Function:
    dispatcher = cast(Any, numba.njit(nogil=True, inline=inline)(function))
    with suppress(RuntimeError):  # no folder can be written
        dispatcher._cache = _Cache(function)
    return cast(Function, dispatcher)


def _digest(function: Callable[..., Any]) -> str:
    """Of what becomes machine code: numba itself looks at the function's own file alone."""
    file = function.__code__.co_filename
    parts = [Path(file).read_bytes()]
    for name, value in sorted(function.__globals__.items()):
        if isinstance(value, Dispatcher) and value.py_func.__code__.co_filename != file:
            parts.append(_digest(value.py_func).encode())
        elif isinstance(value, Number | tuple):  # compiled as constants
            parts.append(f"{name}={value!r}".encode())
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


class _Locator(caching._CacheLocator):
    """Where the code of a function is kept, and the digest of what it was made from."""

    def __init__(self, function: Callable[..., Any], folder: Path, digest: str) -> None:
        self._line, self._folder, self._stamp = function.__code__.co_firstlineno, folder, digest

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self | None:
        """The first place that can be written, or None."""
        digest = _digest(py_func)
        for folder in _folders(Path(py_file), digest):
            locator = cls(py_func, folder, digest)
            try:
                locator.ensure_cache_path()
            except OSError:
                continue
            return locator
        return None

    def get_cache_path(self) -> str:
        """The folder of the function's files."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """What has to be the same for kept code to be used."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """Part of the files' names, which differs for functions of one name in a file."""
        return str(self._line)


def _folders(file: Path, digest: str) -> Iterator[Path]:
    own = f"{file.stem}-{digest[:16]}"
    if shared := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(shared) / own
    yield file.parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrace" / own


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes: list[Any] = [_Locator]


class _Cache(caching.FunctionCache):
    _impl_class = _Implementation
