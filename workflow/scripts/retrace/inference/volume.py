"""A whole volume through a network: plan, resume, predict, publish."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import zarr
from torch import Tensor

from retrace.errors import ConfigError, DeviceError
from retrace.files import atomic_write, read_json
from retrace.geometry import Triple, VoxelBox, triple
from retrace.inference.inputs import AnyInputs
from retrace.inference.pipeline import overlapped, side_by_side
from retrace.inference.predictor import Predictor
from retrace.inference.tiles import (
    Tile,
    TileNetwork,
    choose_tile,
    chunk_shape,
    snap,
)
from retrace.progress import progress
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Output:
    """What is written: the box in world voxels, channels per head, dtype and chunks (z, y, x)."""

    box: VoxelBox
    channels: Mapping[str, int]
    dtype: str
    chunks: Triple

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"prediction dtype {self.dtype!r}; allowed: {', '.join(DTYPES)}")


def plan_tile(
    network: TileNetwork,
    box: VoxelBox,
    asked: str | Sequence[int],
    largest_window: Callable[[float], float],
) -> Triple:
    """The tile shape: as configured, snapped to the stride, or the cheapest that fits in memory.

    `largest_window`: voxels of input that fit, given the most that could be of use. DeviceError
    where not even one stride fits.
    """
    if not isinstance(asked, str):
        return snap(asked, network.stride, box)
    if asked != "auto":
        raise ConfigError(f"tile {asked!r}; give 'auto' or [z, y, x] voxels")
    chunk = chunk_shape(network.stride)
    whole = [math.ceil(size / step) * step for size, step in zip(box.shape, chunk, strict=True)]
    fitting = largest_window(math.prod(network.valid_shape(whole)))
    for unit in (chunk, network.stride):
        found = choose_tile(network, box, unit, fitting)
        if found:
            return found
    raise DeviceError(
        f"out of memory before the start: the smallest tile needs "
        f"{np.prod(network.valid_shape((1, 1, 1)))} voxels of input, {int(fitting)} fit; "
        "free memory, or use a network with fewer `fmaps`"
    )


def create_arrays(store: Path, output: Output, raw: Volume) -> None:
    """Empty arrays of a prediction (C, Z, Y, X), one per head, on the grid of `raw`."""
    for name, channels in output.channels.items():
        create_volume(
            store,
            name,
            shape=(channels, *output.box.shape),
            chunks=(channels, *output.chunks),
            dtype=output.dtype,
            voxel_size_nm=raw.voxel_size_nm,
            offset_nm=output.box.to_nm(raw.voxel_size_nm).offset,
        )


class PartialStore:
    """The store under construction, its journal, and the tile shape it was begun with."""

    def __init__(
        self, store: Path, work: Path, output: Output, raw: Volume, planned_tile: Triple
    ) -> None:
        """Goes on with what an earlier run left in `store` and `work`, or starts afresh.

        `tile_shape` is then the earlier run's, as free memory may differ by now.
        """
        begun = work / "begun.json"
        if not (store.is_dir() and begun.is_file()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            create_arrays(store, output, raw)
            atomic_write(begun, json.dumps({"tile_shape": planned_tile}))
        self.tile_shape = triple(read_json(begun)["tile_shape"])
        self.store, self._origin = store, output.box.offset
        group = zarr.open_group(store, mode="r+")
        self._arrays: dict[str, Any] = {name: group[name] for name in output.channels}
        self.journal = Journal(work)
        # Two devices may end with tiles of one chunk at the same time.
        self._writing = Lock()

    def _region(self, core: VoxelBox) -> tuple[slice, ...]:
        return (slice(None), *core.slices(self._origin))

    def write(self, tile: Tile, outputs: Mapping[str, Tensor]) -> None:
        """Stores the outputs of a tile (device or main memory) and notes it as done."""
        data = {name: outputs[name].cpu().numpy() for name in self._arrays}
        with self._writing:
            for name, values in data.items():
                self._arrays[name][self._region(tile.core)] = values
            self.journal.note(tile.core, checksum(data.values()))

    def write_zeros(self, tile: Tile) -> None:
        """Stores 0 where the tissue mask leaves nothing, and notes the tile as done."""
        data = [np.zeros((a.shape[0], *tile.core.shape), a.dtype) for a in self._arrays.values()]
        for array, values in zip(self._arrays.values(), data, strict=True):
            array[self._region(tile.core)] = values
        self.journal.note(tile.core, checksum(data), masked=1)

    def holds(self, tile: Tile) -> bool:
        """Whether the tile is done and its bytes are what was written."""
        expected = self.journal.checksum_of(tile.core)
        if expected is None:
            return False
        try:
            found = [np.asarray(a[self._region(tile.core)]) for a in self._arrays.values()]
        except (OSError, RuntimeError, ValueError):
            region = tile.core.shift([-o for o in self._origin])
            for name, array in self._arrays.items():
                drop_damaged(array, self.store / name, region)
            return False
        return checksum(found) == expected

    def clear_leftovers(self) -> None:
        """Removes the half-written chunk files of a killed run."""
        for leftover in self.store.rglob("*.partial"):
            leftover.unlink()


def predict_tiles(
    predictors: Sequence[Predictor], inputs: AnyInputs, store: PartialStore, grid: Sequence[Tile]
) -> Iterator[Tile]:
    """Predicts the tiles of `grid` that `store` does not hold; yields each when it is written.

    `predictors`: one a device; they take the tiles in turns.
    """
    store.clear_leftovers()
    missing = [tile for tile in grid if not store.holds(tile)]
    if len(missing) < len(grid):
        print(f"[predict] {len(grid) - len(missing)} of {len(grid)} tiles are done already")
    seen = []
    for tile in missing:
        if not inputs.is_masked(tile.core):
            seen.append(tile)
            continue
        store.write_zeros(tile)
        yield tile

    def read(tile: Tile) -> np.ndarray:
        return inputs.read(tile.window)

    count = len(predictors)
    done = side_by_side(
        [
            overlapped(seen[lane::count], read, predictor, store.write)
            for lane, predictor in enumerate(predictors)
        ]
    )
    yield from progress(done, len(seen), "predict", "tiles")
