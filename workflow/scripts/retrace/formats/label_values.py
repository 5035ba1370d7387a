"""Labels computed from stored values: connected components, RGB colours, groups of classes.

Each class reads like a zarr array: it has `shape`, `dtype`, `attrs` and slicing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import cc3d
import numpy as np

from retrace.errors import DataError
from retrace.formats.label_ids import held_ids

SECTIONS_KEPT = 16
"""Sections whose components stay in memory, because neighbouring reads share them."""


class SectionObjects:
    """Object ids (Z, Y, X) of a membrane map, 0 on membranes; uint64, or int64 if it has a sign.

    Objects are the connected components (4 neighbours) within each section. Ids differ between
    sections. Values below 0 and NaN are unlabelled: -1.
    """

    def __init__(self, array: Any, kind: str) -> None:
        """`array` (Z, Y, X); `kind`: "cells" (0 on membranes) or "membranes" (0 off membranes)."""
        self._array, self._membranes = array, kind == "membranes"
        self.shape: tuple[int, ...] = tuple(array.shape)
        has_sign = np.dtype(array.dtype).kind in "if"
        self.dtype = np.dtype(np.int64 if has_sign else np.uint64)
        self._section = lru_cache(SECTIONS_KEPT)(self._components)

    def _components(self, z: int) -> np.ndarray:
        values = np.asarray(self._array[z : z + 1])[0]
        unlabelled = ~(values >= 0)
        inside = ((values == 0) if self._membranes else (values != 0)) & ~unlabelled
        objects = cc3d.connected_components(inside.astype(np.uint8), connectivity=4)
        # Ids of section z start above those of section z - 1: no section has more components than
        # a checkerboard, half of its pixels.
        first = z * (inside.size // 2 + 1)
        ids = np.where(objects > 0, objects.astype(np.int64) + first, 0)
        ids[unlabelled] = -1
        return ids.astype(self.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        sections = range(self.shape[0])[key[0]]
        if isinstance(sections, int):
            return np.asarray(self._section(sections)[key[1:]])
        planes = [self._section(z)[key[1:]] for z in sections]
        empty = np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *key[1:])]
        return np.stack(planes) if planes else empty


class ClassGroups:
    """Classes (Z, Y, X) int32: the index of the group that holds the stored value, or -1."""

    def __init__(self, array: Any, groups: Sequence[Sequence[int]]) -> None:
        """`array` (Z, Y, X) of integers; `groups`: the stored values of each class."""
        self._array = array
        class_of = {value: number for number, group in enumerate(groups) for value in group}
        self._values = np.sort(_exact_values(class_of, np.dtype(array.dtype)))
        self._classes = np.array([class_of[int(value)] for value in self._values], np.int32)
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(np.int32)

    def __getitem__(self, key: Any) -> np.ndarray:
        stored = np.asarray(self._array[key])
        if not len(self._values):
            return np.full(stored.shape, -1, np.int32)
        index = np.searchsorted(self._values, stored).clip(max=len(self._values) - 1)
        classes = np.where(self._values[index] == stored, self._classes[index], -1)
        return np.asarray(classes, np.int32)


def _exact_values(values: Iterable[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Those of the values that an array of this dtype can hold exactly, (n,) of that dtype.

    Compared in another dtype, 2^64 - 1 would equal -1, and 2^53 + 1 would equal 2^53.
    """
    if dtype.kind in "ui":
        return held_ids(values, dtype)
    if dtype.kind == "b":
        return np.array([bool(value) for value in values if value in (0, 1)], dtype)
    exact = [value for value in values if int(float(value)) == value == dtype.type(value)]
    return np.array(exact, dtype)


class ColourLabels:
    """Ids (Z, Y, X) uint32 of RGB colours: 65536 red + 256 green + blue, as in ZNN."""

    def __init__(self, array: Any) -> None:
        """`array` (C, Z, Y, X) uint8."""
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape[1:])
        self.dtype = np.dtype(np.uint32)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        return from_colours(np.moveaxis(np.asarray(self._array[(slice(None), *key)]), 0, -1))


def from_colours(values: np.ndarray) -> np.ndarray:
    """Ids (...) uint32 of colours (..., 3 or 4) uint8; alpha is ignored. DataError otherwise."""
    if values.shape[-1] not in (3, 4) or values.dtype != np.uint8:
        raise DataError(f"{values.shape} {values.dtype} is not RGB or RGBA of 8 bits")
    red, green, blue = (values[..., i].astype(np.uint32) for i in range(3))
    return (red << np.uint32(16)) | (green << np.uint32(8)) | blue


def compact(labels: np.ndarray) -> np.ndarray:
    """Labels as int32, same shape: 0 stays 0, the other ids become 1, 2 … in ascending order.

    For libraries that take no 64-bit labels: equal labels stay equal, and 0 stays 0.
    """
    ids, index = np.unique(labels, return_inverse=True)
    new_ids = np.arange(1, len(ids) + 1, dtype=np.int32)
    new_ids[ids == 0] = 0
    compacted: np.ndarray = new_ids[index.reshape(labels.shape)]
    return compacted
