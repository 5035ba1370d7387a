"""Which voxels a network predicts, and tiles that together equal one pass over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.storage.volumes import Volume

PADDINGS = ("valid", "reflect", "symmetric")
"""Allowed values of `predict_padding`; see `output_box`."""


class TileNetwork(Protocol):
    """The interface of a network that is predicted with; shapes are (z, y, x) voxels."""

    @property
    def context(self) -> Triple:
        """How many voxels the output is smaller than the input."""

    @property
    def stride(self) -> Triple:
        """Shifts of the input by multiples of the stride shift the output by as much."""

    def valid_shape(self, min_output: Sequence[int]) -> Triple:
        """The smallest input shape that the network accepts for at least this output."""

    def output_shape(self, input_shape: Sequence[int]) -> Triple:
        """The output shape for a valid input shape."""

    def flop(self, input_shape: Sequence[int]) -> int:
        """Multiplications and additions of one forward pass."""

    def layer_values(self, input_shape: Sequence[int]) -> int:
        """Values that the layer with the largest input and output reads and writes in a pass."""

    def __call__(self, x: Tensor) -> Mapping[str, Tensor]:
        """Heads by name, (1, C, Z, Y, X), of an input (1, C, Z, Y, X)."""


@dataclass(frozen=True)
class Tile:
    """`core`: the voxels that the tile predicts; `window`: the input it reads. World voxels.

    The window starts half a context before the core. Its shape is one that pooling divides evenly,
    so it may reach beyond the raw; output beyond the core is discarded.
    """

    core: VoxelBox
    window: VoxelBox


def half_context(network: TileNetwork) -> Triple:
    """Voxels (z, y, x) between the first voxel of the input and the first of the output."""
    return triple([lost // 2 for lost in network.context])


def tile_for(network: TileNetwork, core: VoxelBox) -> Tile:
    """The tile that predicts `core`."""
    lead = half_context(network)
    offset = triple([o - c for o, c in zip(core.offset, lead, strict=True)])
    return Tile(core, VoxelBox(offset, triple(network.valid_shape(core.shape))))


def output_box(
    raw: Volume, network: TileNetwork, padding: str, roi: VoxelBox | None = None
) -> VoxelBox:
    """The box that is predicted, world voxels.

    `padding`: "valid" (Sheridan et al. 2023) predicts the raw except half a context on every side;
    "reflect" and "symmetric" predict all of it and mirror the border, without or with the last
    voxel. `roi` restricts the box; raw around it serves as context.
    Raises DataError if the box is empty or the raw is smaller than the network needs.
    """
    lead = half_context(network)
    _check_size(raw, network, padding, lead)
    inside = raw.box.grow([-c for c in lead]) if padding == "valid" else raw.box
    box = inside.intersect(roi) if roi is not None else inside
    if box.is_empty:
        raise DataError(
            f"{raw.name}: the region of interest and the box that the network can predict "
            f"({inside.offset}+{inside.shape} voxels) have nothing in common; enlarge `roi_nm`"
        )
    return box


def _check_size(raw: Volume, network: TileNetwork, padding: str, lead: Triple) -> None:
    if padding not in PADDINGS:
        raise ConfigError(f"predict_padding is {padding!r}; allowed: {', '.join(PADDINGS)}")
    # Mirroring more than the whole volume would show the network mostly copies.
    least = triple([c + 1 for c in (network.context if padding == "valid" else lead)])
    if any(have < need for have, need in zip(raw.box.shape, least, strict=True)):
        mirror = 'set `predict_padding: "reflect"` (is_bd_mirror in networks of ZNN)'
        advice = f", or {mirror}" if padding == "valid" else ""
        raise DataError(
            f"{raw.name} has {list(raw.box.shape)} voxels (z, y, x), smaller than the network's "
            f"field of view: at least {list(least)} are needed. Take a larger volume or a network "
            f"with less context{advice}"
        )


def tiles(network: TileNetwork, box: VoxelBox, tile_shape: Sequence[int]) -> Iterator[Tile]:
    """Tiles of `box` whose first corners differ by multiples of the network's stride.

    So pooling windows start at the same voxels in every grid, and any grid gives the result of one
    pass. Raises ConfigError if `tile_shape` is no multiple of the stride.
    """
    if any(edge % step for edge, step in zip(tile_shape, network.stride, strict=True)):
        raise ConfigError(
            f"tile {list(tile_shape)} is no multiple of the network's stride {list(network.stride)}"
        )
    for core in blocks(box, tile_shape):
        yield tile_for(network, core)


def reflected_indices(begin: int, end: int, size: int) -> np.ndarray:
    """Indices (end - begin,) into an axis of `size` voxels for begin ... end - 1, mirrored at both
    borders without repeating the border voxel."""
    if size == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (size - 1)
    phase = np.arange(begin, end) % period
    return np.minimum(phase, period - phase)


def read_reflected(raw: Volume, window: VoxelBox) -> np.ndarray:
    """The raw of `window`, (Z, Y, X), mirrored beyond the border of the volume."""
    if raw.box.contains(window):
        return raw.read(window)
    starts = [o - r for o, r in zip(window.offset, raw.box.offset, strict=True)]
    rows = [
        reflected_indices(start, start + length, size)
        for start, length, size in zip(starts, window.shape, raw.box.shape, strict=True)
    ]
    low = triple([r.min() for r in rows])
    shape = triple([r.max() - r.min() + 1 for r in rows])
    data = raw.read(VoxelBox(low, shape).shift(raw.box.offset))
    return data[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]
