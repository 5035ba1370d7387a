"""Affinities: for each voxel and offset, whether both ends belong to the same object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import EllipsisType

import torch
from torch import Tensor

from retrace.errors import ConfigError, DataError

Neighborhood = Sequence[Sequence[int]]
"""One (z, y, x) offset in voxels per affinity channel."""

Slices = tuple[EllipsisType | slice, ...]


def affinities(labels: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Affinities (..., C, Z, Y, X) float32, one channel per offset, of `labels` (..., Z, Y, X) int.

    1 where a voxel and the voxel at voxel + offset have the same label above 0, else 0. Where the
    neighbour is outside `labels` the affinity is 0, so pass labels with a margin as large as the
    offsets. ConfigError for an offset that is not (z, y, x). Source: gunpowder, `AddAffinities`.
    """
    shape = _stacked_shape(labels, neighborhood)
    result = labels.new_zeros(shape, dtype=torch.float32)
    for channel, voxels, neighbours in _pairs(result, labels, neighborhood):
        same = labels[voxels] == labels[neighbours]
        channel[voxels] = (same & (labels[voxels] > 0)).float()
    return result


def affinity_mask(mask: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Where affinities are known, (..., C, Z, Y, X) bool: both ends are in `mask` (..., Z, Y, X).

    False where the neighbour is outside the array. ConfigError as for `affinities`.
    """
    shape = _stacked_shape(mask, neighborhood)
    inside = mask != 0
    result = mask.new_zeros(shape, dtype=torch.bool)
    for channel, voxels, neighbours in _pairs(result, mask, neighborhood):
        channel[voxels] = inside[voxels] & inside[neighbours]
    return result


def _stacked_shape(volume: Tensor, neighborhood: Neighborhood) -> tuple[int, ...]:
    if not isinstance(volume, Tensor) or volume.ndim < 3:
        raise DataError(
            "labels and masks must be tensors (..., z, y, x), not "
            f"{type(volume).__name__} {tuple(volume.shape)}; torch.from_numpy makes them of arrays"
        )
    *leading, z, y, x = volume.shape
    return *leading, len(neighborhood), z, y, x


def _pairs(
    result: Tensor, volume: Tensor, neighborhood: Neighborhood
) -> Iterator[tuple[Tensor, Slices, Slices]]:
    """For each offset: its channel of `result`, slices of the voxels and of their neighbours."""
    for index, offset in enumerate(neighborhood):
        if len(offset) != 3:
            raise ConfigError(f"offset {list(offset)} of the neighborhood is not (z, y, x)")
        spans = [_span(d, n) for d, n in zip(offset, volume.shape[-3:], strict=True)]
        voxels = [slice(begin, end) for begin, end in spans]
        neighbours = [
            slice(begin + d, end + d) for (begin, end), d in zip(spans, offset, strict=True)
        ]
        yield result.select(-4, index), (..., *voxels), (..., *neighbours)


def _span(offset: int, size: int) -> tuple[int, int]:
    """Begin and end of the positions whose neighbour at `offset` is in [0, size); may be empty."""
    begin, end = max(0, -offset), min(size, size - offset)
    return (begin, end) if begin < end else (abs(offset), abs(offset))
