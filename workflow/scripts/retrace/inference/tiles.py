"""Where a network's output lies, and how it is cut into tiles that equal one big pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.storage.volumes import Volume

LARGEST_EDGE = 1024
"""Longest tile edge that is chosen automatically, voxels: beyond it the halo costs nothing."""
PADDINGS = ("valid", "reflect", "symmetric")


class TileNetwork(Protocol):
    """What the predictor asks of a network; shapes are (z, y, x) voxels."""

    @property
    def context(self) -> Triple: ...
    @property
    def stride(self) -> Triple: ...
    def valid_shape(self, min_output: Sequence[int]) -> Triple: ...
    def output_shape(self, input_shape: Sequence[int]) -> Triple: ...
    def flop(self, input_shape: Sequence[int]) -> int: ...
    def __call__(self, x: Tensor) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Tile:
    """`core`: what the tile contributes; `window`: the raw it needs. World voxels.

    The window starts half a context before the core. Its shape leaves no pooling remainder, so it
    may reach past the raw; what the network gives beyond the core is thrown away.
    """

    core: VoxelBox
    window: VoxelBox


def half_context(network: TileNetwork) -> Triple:
    """Voxels the output lies inside the input on the low side, per axis."""
    return triple([lost // 2 for lost in network.context])


def tile_for(network: TileNetwork, core: VoxelBox) -> Tile:
    """The tile that yields `core`."""
    lead = half_context(network)
    offset = triple([o - c for o, c in zip(core.offset, lead, strict=True)])
    return Tile(core, VoxelBox(offset, triple(network.valid_shape(core.shape))))


def output_box(
    raw: Volume, network: TileNetwork, padding: str, roi: VoxelBox | None = None
) -> VoxelBox:
    """The voxels that are predicted, in world voxels.

    "valid" (Sheridan et al. 2023): the raw less half a context on every side. "reflect",
    "symmetric": all of the raw, whose border is mirrored, without or with its last voxel. `roi`
    narrows it; raw around it serves as context.
    DataError where nothing is left or the raw is too small for the network.
    """
    lead = half_context(network)
    _check_size(raw, network, padding, lead)
    inside = raw.box.grow([-c for c in lead]) if padding == "valid" else raw.box
    box = inside.intersect(roi) if roi is not None else inside
    if box.is_empty:
        raise DataError(
            f"{raw.name}: the region of interest and what the network can predict "
            f"({inside.offset}+{inside.shape} voxels) have nothing in common; enlarge `roi_nm`"
        )
    return box


def _check_size(raw: Volume, network: TileNetwork, padding: str, lead: Triple) -> None:
    if padding not in PADDINGS:
        raise ConfigError(f"predict_padding is {padding!r}; allowed: {', '.join(PADDINGS)}")
    # Mirroring more than the volume itself would show the network little but copies.
    least = triple([c + 1 for c in (network.context if padding == "valid" else lead)])
    if any(have < need for have, need in zip(raw.box.shape, least, strict=True)):
        mirror = 'set `predict_padding: "reflect"` (is_bd_mirror in networks of ZNN)'
        advice = f", or {mirror}" if padding == "valid" else ""
        raise DataError(
            f"{raw.name} has {list(raw.box.shape)} voxels (z, y, x), smaller than the network's "
            f"field of view: at least {list(least)} are needed. Take a larger volume or a network "
            f"with less context{advice}"
        )


def snap(tile_shape: Sequence[int], stride: Sequence[int], box: VoxelBox) -> Triple:
    """The nearest smaller multiple of the stride (at least one), no larger than `box` needs."""
    edges = []
    for asked, step, size in zip(tile_shape, stride, box.shape, strict=True):
        whole = math.ceil(size / step)
        edges.append(step * max(1, min(asked // step, whole)))
    return triple(edges)


def tiles(network: TileNetwork, box: VoxelBox, tile_shape: Sequence[int]) -> Iterator[Tile]:
    """Tiles of `box` whose first corners differ by multiples of the network's stride.

    That makes every grid equal to one big pass: pooling windows start at the same voxels.
    ConfigError where `tile_shape` is no multiple of the stride.
    """
    if any(edge % step for edge, step in zip(tile_shape, network.stride, strict=True)):
        raise ConfigError(
            f"tile {list(tile_shape)} is no multiple of the network's stride {list(network.stride)}"
        )
    for core in blocks(box, tile_shape):
        yield tile_for(network, core)


def _edges(size: int, unit: int) -> list[int]:
    fewest = math.ceil(size / LARGEST_EDGE)
    parts = range(fewest, fewest + 32)
    return sorted({unit * math.ceil(size / count / unit) for count in parts})


def choose_tile(
    network: TileNetwork, box: VoxelBox, unit: Sequence[int], largest_window: float
) -> Triple | None:
    """The tile that costs least arithmetic over `box`; its window fits `largest_window` voxels.

    Edges are multiples of `unit`, itself a multiple of the stride. None where nothing fits.
    """
    edges = [_edges(size, step) for size, step in zip(box.shape, unit, strict=True)]
    best: tuple[float, Triple] | None = None
    for shape in itertools.product(*edges):
        window = network.valid_shape(shape)
        if math.prod(window) > largest_window:
            continue
        count = math.prod(math.ceil(s / t) for s, t in zip(box.shape, shape, strict=True))
        cost = (float(count * network.flop(window)), triple(shape))
        best = min(best, cost) if best else cost
    return best[1] if best else None


def chunk_shape(stride: Sequence[int], edge: int = 64) -> Triple:
    """Chunk edges (z, y, x) near `edge`, multiples of the stride so that tiles can match them."""
    return triple([step * max(1, round(edge / step)) for step in stride])


def mirrored(begin: int, end: int, size: int) -> np.ndarray:
    """Indices into an axis of `size` voxels for begin ... end - 1, mirrored at both borders."""
    if size == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (size - 1)
    phase = np.arange(begin, end) % period
    return np.minimum(phase, period - phase)


def read_window(raw: Volume, window: VoxelBox) -> np.ndarray:
    """The raw of `window` (Z, Y, X); past the volume's border it is mirrored."""
    if raw.box.contains(window):
        return raw.read(window)
    starts = [o - r for o, r in zip(window.offset, raw.box.offset, strict=True)]
    rows = [
        mirrored(start, start + length, size)
        for start, length, size in zip(starts, window.shape, raw.box.shape, strict=True)
    ]
    low = triple([r.min() for r in rows])
    shape = triple([r.max() - r.min() + 1 for r in rows])
    data = raw.read(VoxelBox(low, shape).shift(raw.box.offset))
    return data[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]
