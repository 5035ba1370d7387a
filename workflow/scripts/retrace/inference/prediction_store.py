"""The zarr store of a prediction while it is written: its arrays, and which tiles are done."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import zarr
from torch import Tensor

from retrace.errors import ConfigError
from retrace.files import read_parsed
from retrace.geometry import NmTriple, Triple, VoxelBox, triple
from retrace.inference.tiles import Tile
from retrace.reading import if_intact
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.unfinished import note_begun, open_unfinished, write_complete_shards
from retrace.storage.zarr_writer import create_volume

DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class PredictionLayout:
    """The arrays of a prediction: their box in world voxels and voxel size (z, y, x), the channels
    of each head, dtype and chunks (z, y, x), and of format 3 the shards (z, y, x; None: as usual).
    Raises ConfigError for an unknown dtype."""

    box: VoxelBox
    voxel_size_nm: NmTriple
    channels: Mapping[str, int]
    dtype: str
    chunks: Triple
    zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT
    shards: Triple | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"prediction dtype {self.dtype!r}; allowed: {', '.join(DTYPES)}")

    def create_arrays(self, store: Path) -> None:
        """Creates the empty arrays, (C, Z, Y, X), one for each head."""
        for name, channels in self.channels.items():
            create_volume(
                store,
                name,
                shape=(channels, *self.box.shape),
                chunks=(channels, *self.chunks),
                dtype=self.dtype,
                voxel_size_nm=self.voxel_size_nm,
                offset_nm=self.box.to_nm(self.voxel_size_nm).offset,
                zarr_format=self.zarr_format,
                shards=self.shards,
            )


class PartialPrediction:
    """A prediction in progress: its store, the journal of finished tiles, and the tile shape."""

    def __init__(
        self, store: Path, work: Path, layout: PredictionLayout, planned_tile: Triple
    ) -> None:
        """Resumes what an earlier run left in `store` and the scratch folder `work`, or starts.

        A resumed prediction keeps the tile shape of the earlier run (`tile_shape`), because the
        free memory, and with it the plan, may differ by now.
        """
        begun = work / "begun.json"
        if not (store.is_dir() and begun.is_file()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            layout.create_arrays(store)
            note_begun(store, begun, {"tile_shape": planned_tile})
        self.tile_shape = read_parsed(begun, lambda content: triple(content["tile_shape"]))
        self.store, self._origin = store, layout.box.offset
        group = open_unfinished(store)
        self._arrays: dict[str, Any] = {name: group[name] for name in layout.channels}
        self.journal = Journal(work)
        # Two devices may finish tiles of the same chunk at the same time.
        self._writing = Lock()

    def _region(self, core: VoxelBox) -> tuple[slice, ...]:
        return (slice(None), *core.slices(self._origin))

    def _store(self, array: zarr.Array, tile: Tile, values: np.ndarray) -> None:
        """Writes a tile (C, Z, Y, X), and the shards that are complete with it."""
        region = self._region(tile.core)
        array[region] = values
        write_complete_shards(array, region)

    def write(self, tile: Tile, outputs: Mapping[str, Tensor]) -> None:
        """Stores a tile's outputs, (C, Z, Y, X) by head, and records the tile as done."""
        data = {name: outputs[name].numpy() for name in self._arrays}
        # A GPU predicts faster than one core compresses or sums, so both happen at once.
        with ThreadPoolExecutor(1) as pool, self._writing:
            summed = pool.submit(checksum, data.values())
            for name, values in data.items():
                self._store(self._arrays[name], tile, values)
            self.journal.note(tile.core, summed.result())

    def write_zeros(self, tile: Tile) -> None:
        """Stores zeros for a tile without tissue, and records it as done."""
        data = [np.zeros((a.shape[0], *tile.core.shape), a.dtype) for a in self._arrays.values()]
        for array, values in zip(self._arrays.values(), data, strict=True):
            self._store(array, tile, values)
        self.journal.note(tile.core, checksum(data), masked=1)

    def holds(self, tile: Tile) -> bool:
        """Whether the tile is done and its stored bytes still have the recorded checksum."""
        expected = self.journal.checksum_of(tile.core)
        if expected is None:
            return False
        core, arrays = self._region(tile.core), self._arrays.values()
        stored = if_intact(lambda: [np.asarray(array[core]) for array in arrays], self.store)
        if stored is None:
            region = tile.core.shift([-o for o in self._origin])
            for name, array in self._arrays.items():
                drop_damaged(array, self.store / name, region)
            return False
        return checksum(stored) == expected

    def missing(self, grid: Sequence[Tile]) -> list[Tile]:
        """The tiles of `grid` that are not done, in order."""
        return [tile for tile in grid if not self.holds(tile)]
