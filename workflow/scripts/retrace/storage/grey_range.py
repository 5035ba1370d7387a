"""Percentiles of the values of an image, exact and in bounded memory, and those of a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.formats.grey_values import Measure
from retrace.formats.normalize import PERCENTILES, Normalize
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.records.record import note_resolved
from retrace.storage.manifest import reading

DIGIT_BITS = 16
"""Bits of a value that one pass over the volume decides."""
READ_VOXELS = 1 << 24
"""Voxels that are counted at once."""
SAMPLES = 3
"""Blocks of a sample along each axis that is longer than all of them."""
SAMPLE_SHAPE: Triple = (8, 128, 128)
"""Voxels of a block of a sample."""


_MEASURED: dict[tuple[Any, ...], tuple[float, float]] = {}
"""What this process has measured, by volume, its version, and percentiles."""


def measured(name: str, array: Any, settings: Normalize, volume: tuple[Any, ...]) -> Measure:
    """A function that gives the stored values that become black and white.

    Percentiles are measured once in a process for each `volume`, a source with its version, and
    noted in the record of the job.
    """

    def measure() -> tuple[float, float]:
        if settings.range is not None:
            return settings.range
        assert settings.percentiles is not None
        key = (*volume, settings.percentiles)
        if key not in _MEASURED:
            _MEASURED[key] = _measure(name, array, settings.percentiles)
        low, high = _MEASURED[key]
        used = {"percentiles": list(settings.percentiles), "range": [low, high]}
        note_resolved(f"normalize of {name}", used | {"invert": bool(settings.invert)})
        return low, high

    return measure


def _measure(name: str, array: Any, wanted: Sequence[float]) -> tuple[float, float]:
    """The two percentiles of all values; DataError if they are equal or infinite."""
    low, high = percentiles(name, array, wanted)
    if not (low < high and math.isfinite(high - low)):
        raise DataError(
            f"{name}: percentiles {list(wanted)} of its values are {low:g} and {high:g}, so "
            "`normalize` has no scale; give `range: [low, high]` instead"
        )
    print(f"[normalize] {name}: percentiles {list(wanted)} are {low:g} and {high:g}", flush=True)
    return low, high


# ---------------------------------------------------------------- exact percentiles


def percentiles(name: str, array: Any, wanted: Sequence[float]) -> tuple[float, ...]:
    """For each percentile p the lowest value of an array (Z, Y, X) with p % of all voxels at most.

    Values are sorted by their bits, 16 of them in each pass over the array: one pass for 8 and 16
    bits, two for 32, four for 64. DataError for NaN.
    """
    dtype = np.dtype(array.dtype).newbyteorder("=")
    bits = 8 * dtype.itemsize
    width = min(bits, DIGIT_BITS)
    count = int(np.prod(array.shape, dtype=object))
    if count == 0:
        raise DataError(f"{name} is empty, so it has no percentiles")
    # For each percentile, the bits that are decided, and the rank among the values that have them.
    found = [(0, max(1, -int(-Fraction(str(p)) * count // 100))) for p in wanted]
    for shift in range(bits - width, -1, -width):
        tables = _digit_counts(name, array, {prefix for prefix, _ in found}, shift, width)
        found = [_next_digit(tables[prefix], prefix, rank, width) for prefix, rank in found]
    keys = np.array([key for key, _ in found], f"u{dtype.itemsize}")
    return tuple(_values(keys, dtype).tolist())


def _digit_counts(
    name: str, array: Any, prefixes: set[int], shift: int, width: int
) -> dict[int, np.ndarray]:
    """For each prefix, how often each digit (2^width,) follows it."""
    counts = {prefix: np.zeros(1 << width, np.int64) for prefix in prefixes}
    for part in _parts(array):
        with reading(name):
            keys = _keys(name, np.asarray(array[part]))
        above = keys >> np.asarray(shift, keys.dtype)
        digits = (above & np.asarray((1 << width) - 1, keys.dtype)).astype(np.intp)
        is_first = shift + width == 8 * keys.itemsize
        for prefix, table in counts.items():
            chosen = digits
            if not is_first:
                chosen = digits[above >> np.asarray(width, keys.dtype) == prefix]
            table += np.bincount(chosen, minlength=1 << width)
    return counts


def _next_digit(table: np.ndarray, prefix: int, rank: int, width: int) -> tuple[int, int]:
    """The prefix with the digit at `rank` added, and the rank among the values that have it."""
    cumulated = np.cumsum(table)
    digit = int(np.searchsorted(cumulated, rank))
    return (prefix << width) | digit, rank - int(cumulated[digit] - table[digit])


def _keys(name: str, values: np.ndarray) -> np.ndarray:
    """Values (N,) as unsigned integers of the same number of bits in the same order."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False).ravel()
    bits = values.view(f"u{values.itemsize}")
    sign = np.asarray(1 << (8 * values.itemsize - 1), bits.dtype)
    if values.dtype.kind == "i":
        return bits ^ sign
    if values.dtype.kind == "f":
        if np.isnan(values).any():
            raise DataError(f"{name} contains NaN; replace them (0 for absent voxels)")
        return np.where(bits & sign, ~bits, bits | sign)
    return bits


def _values(keys: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The values (N,) of keys."""
    sign = np.asarray(1 << (8 * keys.itemsize - 1), keys.dtype)
    if dtype.kind == "i":
        return (keys ^ sign).view(dtype)
    if dtype.kind == "f":
        return np.where(keys & sign, keys ^ sign, ~keys).view(dtype)
    return keys if dtype.kind == "b" else keys.view(dtype)


def _parts(array: Any) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array; each holds whole chunks, and each chunk is in one of them."""
    *lead, depth, height, width = array.shape
    stored = getattr(array, "chunks", None) or getattr(array, "block_shape", None)
    chunk = list(stored[-3:] if stored else (1, height, width))
    shape = [min(size, edge) for size, edge in zip((depth, height, width), chunk, strict=True)]
    for axis, size in reversed(list(enumerate((depth, height, width)))):
        room = max(1, READ_VOXELS // max(1, int(np.prod(shape))))
        shape[axis] = min(size, shape[axis] * room)
    channels = [(slice(c, c + 1),) for c in range(lead[0])] if lead else [()]
    box = VoxelBox((0, 0, 0), triple([depth, height, width]))
    for channel in channels:
        for block in blocks(box, triple(shape)):
            yield (*channel, *block.slices())


# ---------------------------------------------------------------- a sample


def sampled_range(name: str, array: Any) -> tuple[float, float] | None:
    """Percentiles 1 and 99 of some blocks of an array (Z, Y, X), always the same ones.

    None if they are equal or no values can be read. NaN and infinite values do not count.
    """
    values = np.concatenate([block.ravel() for block in _sampled_blocks(name, array)])
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    low, high = np.percentile(values, PERCENTILES, method="inverted_cdf").tolist()
    return (low, high) if low < high else None


def _sampled_blocks(name: str, array: Any) -> Iterator[np.ndarray]:
    """Blocks ([C,] z, y, x) spread over an array."""
    *lead, depth, height, width = array.shape
    for box in sample_boxes(VoxelBox((0, 0, 0), triple([depth, height, width]))):
        with reading(name):
            yield np.asarray(array[(*(slice(None) for _ in lead), *box.slices())])


def sample_boxes(box: VoxelBox) -> Iterator[VoxelBox]:
    """Boxes spread over a larger one, voxels; along short axes they cover it."""
    axes = []
    for begin, size, edge in zip(box.offset, box.shape, SAMPLE_SHAPE, strict=True):
        steps = range(SAMPLES)
        spread = [(begin + (size - edge) * step // (SAMPLES - 1), edge) for step in steps]
        axes.append([(begin, size)] if size <= SAMPLES * edge else spread)
    for spans in product(*axes):
        yield VoxelBox(triple([b for b, _ in spans]), triple([n for _, n in spans]))
