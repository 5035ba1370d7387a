"""Images whose stored values become grey values, block by block, as `normalize` says.

It reads like a zarr array: it has `shape`, `dtype` and slicing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.formats.normalize import Normalize

WHITE = 255
"""The largest grey value."""

Measure = Callable[[], tuple[float, float]]
"""Gives the stored values that become black and white."""


class GreyValues:
    """An image (Z, Y, X) or (C, Z, Y, X): uint8, or float if it is only inverted."""

    def __init__(self, name: str, array: Any, settings: Normalize, measure: Measure) -> None:
        """`measure` is called once, before the first values are read, without a `range`.

        DataError for values that are no numbers.
        """
        self.name, self.array, self.settings = name, array, settings
        stored = np.dtype(array.dtype)
        if stored.kind not in "uifb":
            raise DataError(f"{name} is {stored}; `normalize` needs an image of numbers")
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(np.uint8) if settings.scales else stored
        self.reader = getattr(array, "reader", None)
        self.chunks = getattr(array, "chunks", None)
        self._measure, self._lock = measure, threading.Lock()
        self._range: tuple[float, float] | None = None

    def value_range(self) -> tuple[float, float]:
        """The stored values that become black and white; measured at the first call."""
        with self._lock:
            if self._range is None:
                self._range = self._measure()
        return self._range

    def __getitem__(self, key: Any) -> np.ndarray:
        stored = np.asarray(self.array[key])
        if self.settings.scales:
            low, high = self.value_range()
            return grey_values(self.name, stored, low, high, invert=bool(self.settings.invert))
        return inverted(stored) if self.settings.invert else stored


class CheckedValues:
    """An image (Z, Y, X) or (C, Z, Y, X) whose values are checked whenever some are read."""

    def __init__(self, array: Any, check: Callable[[np.ndarray], None]) -> None:
        """`check` raises DataError for values that networks cannot read."""
        self.array, self._check = array, check
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.reader = getattr(array, "reader", None)
        self.chunks = getattr(array, "chunks", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        values = np.asarray(self.array[key])
        self._check(values)
        return values


def inverted(stored: np.ndarray) -> np.ndarray:
    """Values (...) with black and white swapped: of integers over their type, of floats in [0, 1].

    DataError is left to the checks of raw, which refuse other types than uint8 and float.
    """
    if stored.dtype.kind == "f":
        return np.asarray(1 - stored, stored.dtype)
    return np.invert(stored)


def grey_values(
    name: str, stored: np.ndarray, low: float, high: float, *, invert: bool
) -> np.ndarray:
    """Grey values (...) uint8 of stored ones: 255 (v - low) / (high - low), cut and rounded.

    DataError for NaN; `name` for the message.
    """
    if stored.dtype.kind in "uib" and stored.dtype.itemsize <= 2:
        table = _table(stored.dtype.str, low, high, invert)
        return table[stored.view(f"u{stored.dtype.itemsize}")]
    return _grey(name, stored, low, high, invert)


@lru_cache(maxsize=16)
def _table(dtype: str, low: float, high: float, invert: bool) -> np.ndarray:
    """The grey value of each stored value, by its bits."""
    bits = 8 * np.dtype(dtype).itemsize
    stored = np.arange(1 << bits, dtype=f"u{bits // 8}")
    values = stored != 0 if np.dtype(dtype).kind == "b" else stored.view(dtype)
    return _grey("", values, low, high, invert)


def _grey(name: str, stored: np.ndarray, low: float, high: float, invert: bool) -> np.ndarray:
    values = stored.astype(np.float64)
    if np.isnan(values).any():
        raise DataError(f"{name} contains NaN; replace them (0 for absent voxels) and run again")
    values -= low
    values *= WHITE / (high - low)
    np.clip(values, 0, WHITE, out=values)
    if invert:
        np.subtract(WHITE, values, out=values)
    return np.rint(values, out=values).astype(np.uint8)
