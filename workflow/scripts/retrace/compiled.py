"""Compiles functions over arrays, once for each machine: later programs load the machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function`, compiled when it is first called with such types of arguments; frees the GIL.

    The machine code is kept next to the module, else in the user's cache folder, or in
    NUMBA_CACHE_DIR. Where no folder can be written, as in an image without a home folder, each
    program compiles again. A kept code is dropped when the file of `function` changes, so compiled
    functions call compiled functions of their own file only (tests/unit/test_compiled.py).
    """
    return _compiled(function, inline="never")


def inlined(function: Function) -> Function:
    """Like `compiled`, but the code becomes part of each function that calls it."""
    return _compiled(function, inline="always")


def _compiled(function: Function, inline: Literal["never", "always"]) -> Function:
    try:
        return cast(Function, numba.njit(nogil=True, inline=inline, cache=True)(function))
    except RuntimeError:  # numba found no folder to write to
        return cast(Function, numba.njit(nogil=True, inline=inline)(function))
