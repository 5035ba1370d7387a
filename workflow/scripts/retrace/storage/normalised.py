"""Images normalised as for ZNN: by the statistics of each section, or of the whole stack.

Source: seung-lab/znn-release, python/front_end/zsample. Statistics are those of the whole stored
image, also if only a part of it is used, and do not include its mirrored border.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox, triple
from retrace.storage.images import open_image
from retrace.storage.volumes import Volume

DEFAULT = "standard2D"
UNIT = "unit"
"""As in ELEKTRONN: integers are divided by 255, floats stay unchanged."""
WHOLE_STACK = ("standard3D", "symetric_rescale")
"""Kinds of preprocessing with one scale for all sections."""


def symmetric_indices(begin: int, end: int, size: int) -> np.ndarray:
    """Indices (end - begin,) into an axis of `size` voxels, mirrored at both borders.

    The border voxel is repeated, as in numpy's pad mode "symmetric".
    """
    phase = np.arange(begin, end) % (2 * size)
    return np.minimum(phase, 2 * size - 1 - phase)


@dataclass(frozen=True)
class NormalisedImage:
    """An image whose value v in section z reads as v scale[z] + shift[z]."""

    volume: Volume
    scale: np.ndarray
    shift: np.ndarray
    """`scale` and `shift` are (Z,) float64."""

    def read(self, window: VoxelBox, within: VoxelBox | None = None) -> np.ndarray:
        """The voxels (Z, Y, X) float64 of `window`, mirrored at the border of `within`.

        `within`: a part of the image; default: all of it.
        """
        limits = self.volume.box if within is None else within
        starts = [w - o for w, o in zip(window.offset, limits.offset, strict=True)]
        rows = [
            symmetric_indices(start, start + length, size)
            for start, length, size in zip(starts, window.shape, limits.shape, strict=True)
        ]
        low = triple([int(r.min()) for r in rows])
        shape = triple([int(r.max()) - int(r.min()) + 1 for r in rows])
        data = self.volume.read(VoxelBox(low, shape).shift(limits.offset))
        data = data[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]
        sections = rows[0] + limits.offset[0] - self.volume.box.offset[0]
        scale, shift = (values[sections][:, None, None] for values in (self.scale, self.shift))
        return data * scale + shift


def open_normalised(source: Source, preprocess: str | None = None) -> NormalisedImage:
    """The image of a dataset's source, with its grey values; reads it once for its statistics.

    `preprocess`: a kind of ZNN, or UNIT; without it that of the source, else standard2D.

    DataError for images with channels, NaN or infinity.
    """
    volume = open_image(source, checks_floats=preprocess == UNIT)
    if volume.channels:
        raise DataError(
            f"{volume.name} has {volume.channels} channels; the image must be (z, y, x)"
        )
    return normalise(volume, preprocess or source.preprocess or DEFAULT)


def normalise(volume: Volume, kind: str) -> NormalisedImage:
    """A volume (Z, Y, X) with preprocessing `kind`; reads it once for its statistics.

    DataError for NaN or infinity.
    """
    statistics = _whole_stack if kind in WHOLE_STACK else _by_section
    scale, shift = statistics(volume, kind)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise DataError(f"{volume.name} contains NaN or infinity; replace them and run again")
    return NormalisedImage(volume, scale, shift)


def _sections(volume: Volume) -> Iterator[np.ndarray]:
    """Each section, (1, Y, X) float64."""
    box = volume.box
    for z in range(box.offset[0], box.end[0]):
        part = VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:]))
        yield volume.read(part).astype(np.float64)


def _by_section(volume: Volume, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (Z,) of each section. A constant section becomes 0; in ZNN it becomes NaN."""
    depth = volume.box.shape[0]
    if kind in ("none", UNIT):
        scale = 1 / 255 if kind == UNIT and volume.dtype.kind in "ui" else 1.0
        return np.full(depth, scale), np.zeros(depth)
    pairs = [_standard(s.mean(), s.std()) for s in _sections(volume)]
    scale, shift = np.array(pairs).T
    return scale, shift


def _whole_stack(volume: Volume, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (Z,), the same for all sections; 0 for a constant stack."""
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
    """Scale and shift that give mean 0 and standard deviation 1."""
    return (1 / deviation, -mean / deviation) if deviation > 0 else (0.0, 0.0 * mean)
