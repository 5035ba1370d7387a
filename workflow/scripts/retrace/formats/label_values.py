"""Labels that are not stored as they are used: what membranes part, colours, groups of values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cc3d
import numpy as np

from retrace.errors import DataError

SECTIONS_KEPT = 16
"""Sections whose objects stay in memory: neighbouring reads share them."""


class SectionObjects:
    """Numbers of the objects that membranes part, found section by section; 0 on membranes.

    Seen like a zarr array (Z, Y, X). Objects are components of 4 neighbours; no number occurs in
    two sections.
    """

    def __init__(self, array: Any, kind: str) -> None:
        """`array` (Z, Y, X): "cells", 0 on membranes, or "membranes", 0 off them."""
        self._array, self._membranes = array, kind == "membranes"
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.attrs = dict(getattr(array, "attrs", {}))
        self.dtype = np.dtype(np.uint64)
        self._section = lru_cache(SECTIONS_KEPT)(self._find)

    def _find(self, z: int) -> np.ndarray:
        values = np.asarray(self._array[z : z + 1])[0]
        inside = (values == 0) if self._membranes else (values != 0)
        objects = cc3d.connected_components(inside.astype(np.uint8), connectivity=4)
        # A checkerboard has the most objects: half of all pixels.
        first = z * (inside.size // 2 + 1)
        return np.where(objects > 0, objects.astype(np.uint64) + np.uint64(first), np.uint64(0))

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        chosen = range(self.shape[0])[key[0]]
        if isinstance(chosen, int):
            return np.asarray(self._section(chosen)[key[1:]])
        planes = [self._section(z)[key[1:]] for z in chosen]
        empty = np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *key[1:])]
        return np.stack(planes) if planes else empty


class ClassGroups:
    """Classes (Z, Y, X) int32 of stored values: the number of the group they are in, or -1."""

    def __init__(self, array: Any, groups: Sequence[Sequence[int]]) -> None:
        self._array = array
        pairs = sorted((value, number) for number, group in enumerate(groups) for value in group)
        self._values, self._classes = (np.array(column) for column in zip(*pairs, strict=True))
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.attrs = dict(getattr(array, "attrs", {}))
        self.dtype = np.dtype(np.int32)

    def __getitem__(self, key: Any) -> np.ndarray:
        stored = np.asarray(self._array[key]).astype(np.int64)
        place = np.searchsorted(self._values, stored).clip(max=len(self._values) - 1)
        found = np.where(self._values[place] == stored, self._classes[place], -1)
        return np.asarray(found, np.int32)


class Colours:
    """Colours (Z, Y, X, 3) uint8 as numbers: 65536 red + 256 green + blue, as ZNN reads them."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape[:3])
        self.attrs = dict(getattr(array, "attrs", {}))
        self.dtype = np.dtype(np.uint32)

    def __getitem__(self, key: Any) -> np.ndarray:
        return from_colours(np.asarray(self._array[key]))


def is_colour(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether an array holds red, green and blue in its last axis."""
    return len(shape) == 4 and shape[-1] == 3 and np.dtype(dtype) == np.uint8


def from_colours(values: np.ndarray) -> np.ndarray:
    """Numbers (...) uint32 of colours (..., 3 or 4) uint8; an alpha channel is ignored."""
    if values.shape[-1] not in (3, 4) or values.dtype != np.uint8:
        raise DataError(f"{values.shape} {values.dtype} holds no colours of 3 or 4 uint8")
    red, green, blue = (values[..., i].astype(np.uint32) for i in range(3))
    return (red << np.uint32(16)) | (green << np.uint32(8)) | blue


def compact(labels: np.ndarray) -> np.ndarray:
    """Labels of any integer type as int32: 1, 2 … in the order of their values, 0 where they are 0.

    Labels of 64 bits fit nowhere else; which are equal, and which are 0, is all that is kept.
    """
    ids, index = np.unique(labels, return_inverse=True)
    numbers = np.arange(1, len(ids) + 1, dtype=np.int32)
    numbers[ids == 0] = 0
    found: np.ndarray = numbers[index.reshape(labels.shape)]
    return found
