"""Which tile shape a prediction uses: as configured, or the one that costs least and fits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from retrace.errors import ConfigError, DeviceError
from retrace.geometry import Triple, VoxelBox, triple
from retrace.inference.predictor import Predictor
from retrace.inference.tiles import TileNetwork
from retrace.storage.chunk_edges import prediction_chunks

LARGEST_EDGE = 1024
"""Longest tile edge that is chosen automatically, voxels: beyond it the halo costs nothing."""


def snap(tile_shape: Sequence[int], stride: Sequence[int], box: VoxelBox) -> Triple:
    """The nearest smaller multiple of the stride (at least one), no larger than `box` needs."""
    edges = []
    for edge, step, size in zip(tile_shape, stride, box.shape, strict=True):
        steps_of_box = math.ceil(size / step)
        edges.append(step * max(1, min(edge // step, steps_of_box)))
    return triple(edges)


def choose_tile(
    network: TileNetwork, box: VoxelBox, unit: Sequence[int], largest_window: float
) -> Triple | None:
    """The tile with the least arithmetic over `box` whose window has at most `largest_window`
    voxels; None if no tile fits.

    Edges are multiples of `unit`, which is a multiple of the stride.
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


def _edges(size: int, unit: int) -> list[int]:
    """Candidate tile edges, voxels: those that divide an axis into equal parts."""
    fewest = math.ceil(size / LARGEST_EDGE)
    counts = range(fewest, fewest + 32)
    return sorted({unit * math.ceil(size / count / unit) for count in counts})


def plan_tile(
    network: TileNetwork,
    box: VoxelBox,
    tile: str | Sequence[int],
    largest_window: float,
) -> Triple:
    """The tile shape: as configured, snapped to the stride, or with "auto" the cheapest that fits.

    `largest_window`: how many voxels of input fit into memory.
    Raises DeviceError if not even one stride fits.
    """
    if not isinstance(tile, str):
        return snap(tile, network.stride, box)
    if tile != "auto":
        raise ConfigError(f"tile {tile!r}; give 'auto' or [z, y, x] voxels")
    chunk = prediction_chunks(network.stride)
    for unit in (chunk, network.stride):
        if shape := choose_tile(network, box, unit, largest_window):
            return shape
    raise DeviceError(
        f"out of memory before the start: the smallest tile needs "
        f"{np.prod(network.valid_shape((1, 1, 1)))} voxels of input, {int(largest_window)} fit; "
        "free memory, or use a network with fewer `fmaps`"
    )


def shard_tile(
    network: TileNetwork,
    box: VoxelBox,
    tile: str | Sequence[int],
    inference_shape: Sequence[int],
) -> Triple:
    """The tile shape of a prediction in shards: whole chunks, and the same in every job.

    As configured, or with "auto" the output of the network's `inference_shape`; never chosen by
    the memory that is free on one machine.
    """
    if isinstance(tile, str):
        tile = network.output_shape(inference_shape)
    # A tile smaller than a chunk becomes one chunk: two jobs must not write into the same chunk.
    return snap(tile, prediction_chunks(network.stride), box)


def check_fits(predictor: Predictor, tile: Triple) -> None:
    """Raises DeviceError if the window of a shard's tile does not fit into memory."""
    window = math.prod(predictor.network.valid_shape(tile))
    if window > (fits := predictor.largest_window()):
        raise DeviceError(
            f"a tile of {list(tile)} voxels reads {window / 1e6:.1f} Mvoxel, "
            f"{fits / 1e6:.1f} fit into memory; set a smaller `tile` "
            "(z, y, x voxels), the same for all shards"
        )
