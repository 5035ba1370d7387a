"""Ids in labels: which of them an integer type can hold, and which voxels are background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from retrace.errors import ConfigError, DataError

LOWEST_ID, HIGHEST_ID = -(2**63), 2**64 - 1
"""The range of ids in labels of 64 bits, signed or not."""
LARGEST_EXACT = 2**53
"""Fractions of 64 bits hold every whole number up to this one; larger ones are rounded."""


def held_ids(ids: Iterable[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The ids that an integer dtype can hold, (n,) of that dtype; the others occur nowhere in it.

    Only integers are compared: as a float, 2^64 - 3 would become 2^64.
    """
    limits = np.iinfo(dtype)
    return np.array([value for value in ids if limits.min <= value <= limits.max], dtype)


def background_values(ids: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Background ids that labels of a dtype can hold, (n,) of that dtype.

    ConfigError for an id that is no whole number of 64 bits.
    """
    for value in ids:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not LOWEST_ID <= value <= HIGHEST_ID:
            raise ConfigError(
                f"background id {value!r} is not a whole number in -2^63 ... 2^64 - 1; correct "
                "`background_ids`"
            )
    return held_ids(ids, dtype)


def is_known(labels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Where labels (Z, Y, X) are at least 0 and not one of `background` (n,), same shape, bool.

    `background` has the dtype of the labels.
    """
    known = np.asarray(labels >= 0)
    if background.size:
        # numpy 2 fails for foreign byte orders if the ids are close to each other.
        native = labels.dtype.newbyteorder("=")
        known &= np.isin(labels.astype(native, copy=False), background.astype(native), invert=True)
    return known


def exact_integers(values: Any, name: str, dtype: type[np.integer[Any]]) -> np.ndarray:
    """Numbers of a file as integers of `dtype`, same shape.

    Whole fractions such as 3.0 become integers. DataError, with `name` and the value, for anything
    else that the dtype cannot hold exactly.
    """
    try:
        array = values if isinstance(values, np.ndarray) else np.array(values, object)
    except ValueError as error:
        raise DataError(f"{name} holds rows of different lengths; give all the same") from error
    limits = np.iinfo(dtype)
    if array.dtype.kind in "ui":
        wrong = array[(array < limits.min) | (array > limits.max)].tolist()
        integers = array
    else:
        stored = array.ravel().tolist()
        numbers = [_whole(value) for value in stored]
        wrong = [
            value
            for value, number in zip(stored, numbers, strict=True)
            if number is None or not limits.min <= number <= limits.max
        ]
        integers = array if wrong else np.array(numbers, dtype).reshape(array.shape)
    if wrong:
        raise DataError(
            f"{name} has {wrong[0]!r}; it must hold whole numbers from {limits.min} to "
            f"{limits.max}, and those above 2^53 not as fractions, which round them"
        )
    return integers.astype(dtype)


def _whole(value: Any) -> int | None:
    """The integer that a number is exactly, None if there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT
    return int(value) if exact else None
