"""Arrays whose axes are stored in any order."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrace.errors import DataError


class ReorderedArray:
    """An array with axes stored in any order, read as (Z, Y, X) or (C, Z, Y, X)."""

    def __init__(self, array: Any, axes: str, channel: int | None, name: str) -> None:
        """`axes`: letters of the stored axes, such as "xyz" or "cxyz"; `channel`: the one to read,
        None for all. DataError if the number of axes differs or there is no such channel."""
        if len(array.shape) != len(axes):
            raise DataError(
                f"{name} has {len(array.shape)} axes {tuple(array.shape)}, the config says "
                f"`axes: {axes}`; name each stored axis once"
            )
        self._array, self._axes, self._channel = array, axes, channel
        letters = "czyx" if "c" in axes and channel is None else "zyx"
        self._order = [axes.index(letter) for letter in letters]
        self.shape: tuple[int, ...] = tuple(array.shape[axis] for axis in self._order)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.attrs = dict(getattr(array, "attrs", {}))
        count = array.shape[axes.index("c")] if "c" in axes else 1
        if channel is not None and channel >= count:
            raise DataError(f"{name} has {count} channels, numbered from 0; there is no {channel}")

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        stored: list[Any] = [slice(None)] * len(self._axes)
        if self._channel is not None and "c" in self._axes:
            stored[self._axes.index("c")] = slice(self._channel, self._channel + 1)
        for axis, part in zip(self._order, key, strict=False):
            stored[axis] = part
        values = np.asarray(self._array[tuple(stored)])
        order = self._order + [a for a in range(len(self._axes)) if a not in self._order]
        values = values.transpose(order)
        return values[..., 0] if len(order) > len(self._order) else values
