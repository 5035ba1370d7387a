"""Images as ZNN's networks read them: each section, or the whole stack, on one scale.

Source: seung-lab/znn-release, python/front_end/zsample. Statistics are those of the whole stored
image, whatever part of it is used, and are taken before it is mirrored at its border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.geometry import VoxelBox, triple
from retrace.storage.volumes import Volume, open_source

DEFAULT = "standard2D"
UNIT = "unit"
"""Integers divided by 255, floats as they are: how ELEKTRONN reads images."""


def mirrored(begin: int, end: int, size: int) -> np.ndarray:
    """Indices into an axis of `size` voxels for begin ... end - 1, both borders mirrored with
    their own voxel (numpy's pad mode "symmetric")."""
    phase = np.arange(begin, end) % (2 * size)
    return np.minimum(phase, 2 * size - 1 - phase)


@dataclass(frozen=True)
class Image:
    """A stored image, value v of section z read as v scale[z] + shift[z]."""

    volume: Volume
    scale: np.ndarray
    shift: np.ndarray
    """Both (Z,) float64."""

    def read(self, window: VoxelBox, within: VoxelBox | None = None) -> np.ndarray:
        """The voxels of `window` (Z, Y, X) float64; beyond `within` (all of it) mirrored there."""
        limits = self.volume.box if within is None else within
        starts = [w - o for w, o in zip(window.offset, limits.offset, strict=True)]
        rows = [
            mirrored(start, start + length, size)
            for start, length, size in zip(starts, window.shape, limits.shape, strict=True)
        ]
        low = triple([int(r.min()) for r in rows])
        shape = triple([int(r.max()) - int(r.min()) + 1 for r in rows])
        data = self.volume.read(VoxelBox(low, shape).shift(limits.offset))
        data = data[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]
        sections = rows[0] + limits.offset[0] - self.volume.box.offset[0]
        scale, shift = (values[sections][:, None, None] for values in (self.scale, self.shift))
        return data * scale + shift


def open_image(source: Mapping[str, Any]) -> Image:
    """The image of a dataset's source, by its `preprocess`; its statistics are read once.

    DataError for an image with channels or values that are no numbers.
    """
    volume = open_source(source)
    if volume.channels:
        raise DataError(
            f"{volume.name} has {volume.channels} channels; an image of (z, y, x) is needed"
        )
    return image_of(volume, source.get("preprocess") or DEFAULT)


def image_of(volume: Volume, kind: str) -> Image:
    """The image of an open volume; its statistics are read once."""
    scale, shift = _whole(volume, kind) if kind in WHOLE else _by_section(volume, kind)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise DataError(f"{volume.name} holds NaN or infinity; replace them and run again")
    return Image(volume, scale, shift)


WHOLE = ("standard3D", "symetric_rescale")


def _sections(volume: Volume) -> Iterator[np.ndarray]:
    box = volume.box
    for z in range(box.offset[0], box.end[0]):
        part = VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:]))
        yield volume.read(part).astype(np.float64)


def _by_section(volume: Volume, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of each section. One of a single value, where ZNN gives NaN, becomes 0."""
    depth = volume.box.shape[0]
    if kind in ("none", UNIT):
        scale = 1 / 255 if kind == UNIT and volume.dtype.kind in "ui" else 1.0
        return np.full(depth, scale), np.zeros(depth)
    found = [_standard(s.mean(), s.std()) for s in _sections(volume)]
    scale, shift = np.array(found).T
    return scale, shift


def _whole(volume: Volume, kind: str) -> tuple[np.ndarray, np.ndarray]:
    sections = [(s.sum(), np.square(s).sum(), s.min(), s.max()) for s in _sections(volume)]
    sums, squares, lows, highs = np.array(sections).T
    mean = sums.sum() / volume.box.size
    if kind == "standard3D":
        variance = max(0.0, squares.sum() / volume.box.size - mean**2)
        scale, shift = _standard(mean, np.sqrt(variance))
    else:
        low, high = lows.min(), highs.max()
        scale = 2 / (high - low) if high > low else 0.0
        shift = -1 - low * scale if high > low else 0.0
    depth = volume.box.shape[0]
    return np.full(depth, scale), np.full(depth, shift)


def _standard(mean: float, deviation: float) -> tuple[float, float]:
    return (1 / deviation, -mean / deviation) if deviation > 0 else (0.0, 0.0 * mean)
