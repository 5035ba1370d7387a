"""Affinities: for every voxel and offset, whether both ends lie in the same object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import EllipsisType

import torch
from torch import Tensor

from retrace.errors import ConfigError

Neighborhood = Sequence[Sequence[int]]
"""One (z, y, x) offset in voxels per channel."""

Slices = tuple[EllipsisType | slice, ...]


def affinities(labels: Tensor, neighborhood: Neighborhood) -> Tensor:
    """1 where a voxel and the voxel at `offset` carry the same label above 0, else 0.

    `labels` (..., Z, Y, X) int; result (..., C, Z, Y, X) float32 on the same device, channels in
    the order of `neighborhood`. Where the neighbour falls outside `labels` the affinity is 0: hand
    over labels with as much context as the offsets reach (gunpowder `AddAffinities`).
    """
    result = labels.new_zeros(_stacked_shape(labels, neighborhood), dtype=torch.float32)
    for channel, here, there in _pairs(result, labels, neighborhood):
        channel[here] = ((labels[here] == labels[there]) & (labels[here] > 0)).float()
    return result


def affinity_mask(mask: Tensor, neighborhood: Neighborhood) -> Tensor:
    """True where a voxel and its neighbour both lie inside `mask` (..., Z, Y, X), else False.

    Result (..., C, Z, Y, X) bool; False where the neighbour falls outside the array.
    """
    inside = mask != 0
    result = mask.new_zeros(_stacked_shape(mask, neighborhood), dtype=torch.bool)
    for channel, here, there in _pairs(result, mask, neighborhood):
        channel[here] = inside[here] & inside[there]
    return result


def _stacked_shape(volume: Tensor, neighborhood: Neighborhood) -> tuple[int, ...]:
    *leading, z, y, x = volume.shape
    return *leading, len(neighborhood), z, y, x


def _pairs(
    result: Tensor, volume: Tensor, neighborhood: Neighborhood
) -> Iterator[tuple[Tensor, Slices, Slices]]:
    """Per offset: its channel of `result`, where the pair fits, and where its other ends lie."""
    for index, offset in enumerate(neighborhood):
        if len(offset) != 3:
            raise ConfigError(f"offset {list(offset)} of the neighborhood is not (z, y, x)")
        spans = [_span(d, n) for d, n in zip(offset, volume.shape[-3:], strict=True)]
        here = [slice(begin, end) for begin, end in spans]
        there = [slice(begin + d, end + d) for (begin, end), d in zip(spans, offset, strict=True)]
        yield result.select(-4, index), (..., *here), (..., *there)


def _span(offset: int, size: int) -> tuple[int, int]:
    """Positions along one axis whose neighbour at `offset` lies inside; empty if none does."""
    begin, end = max(0, -offset), min(size, size - offset)
    return (begin, end) if begin < end else (abs(offset), abs(offset))
