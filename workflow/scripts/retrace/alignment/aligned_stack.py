"""The store of an aligned stack: fields and images, written section by section, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrace.alignment.section_masks import SectionMasks
from retrace.files import read_json
from retrace.geometry import VoxelBox, blocks, triple
from retrace.reading import if_intact
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.shard_grid import shard_edges
from retrace.storage.unfinished import (
    note_begun,
    open_unfinished,
    remove_partial_files,
    write_complete_shards,
)
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

FIELD, ALIGNED, RENDERED, MASK = "field", "aligned", "rendered", "mask"
"""Arrays of the result: fields (2, Z, Y, X) float32 px, images (Z, Y, X) uint8 at the mip of the
fields, the images at `render_mip` where that is finer, and ternary masks (Z, Y, X) uint8 of the
aligned images where defects are known."""
CHUNK = 256
SHARD = 4096
"""Edge of the part of a section that is one file of zarr format 3."""


class AlignedStack:
    """The store of an aligned stack while it is written, and its journal of finished sections."""

    def __init__(
        self,
        store: Path,
        work: Path,
        sections: Volume,
        fine: Volume | None,
        *,
        masks: SectionMasks | None = None,
        zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT,
    ) -> None:
        """Resumes the store of an earlier run, or creates it.

        `fine`: a finer volume to render; `masks`: the defects of the sections.
        """
        self.zarr_format, self.masks = zarr_format, masks
        self.store, self.sections, self.fine = store, sections, fine
        begun = work / "begun.json"
        shape = list(sections.box.shape)
        if not (begun.is_file() and read_json(begun) == shape and store.is_dir()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            self._create()
            note_begun(store, begun, shape)
        self.group: Any = open_unfinished(store)
        self.names = [FIELD, ALIGNED] + ([RENDERED] if fine else []) + ([MASK] if masks else [])
        self.journal = Journal(work)
        remove_partial_files(store)

    def _create(self) -> None:
        sections, fine = self.sections, self.fine
        chunk = (1, CHUNK, CHUNK)
        shape, size = sections.box.shape, sections.voxel_size_nm
        place: dict[str, Any] = {"voxel_size_nm": size, "offset_nm": sections.offset_nm}
        place |= self._files(shape)
        field_shape = (2, *shape)
        create_volume(
            self.store, FIELD, shape=field_shape, chunks=(2, *chunk), dtype="float32", **place
        )
        for name in (ALIGNED, MASK) if self.masks else (ALIGNED,):
            create_volume(self.store, name, shape=shape, chunks=chunk, dtype="uint8", **place)
        if fine is not None:
            place = {"voxel_size_nm": fine.voxel_size_nm, "offset_nm": fine.offset_nm}
            place |= self._files(fine.box.shape)
            create_volume(
                self.store, RENDERED, shape=fine.box.shape, chunks=chunk, dtype="uint8", **place
            )

    def _files(self, shape: Sequence[int]) -> dict[str, Any]:
        """Format and shards of an array (Z, Y, X); a shard is in one section: written once."""
        shards = shard_edges(shape, (1, CHUNK, CHUNK), largest=(1, SHARD, SHARD))
        return {"zarr_format": self.zarr_format, "shards": shards}

    def _box(self, z: int) -> VoxelBox:
        """The box of section `z` in the journal."""
        _, height, width = self.sections.box.shape
        return VoxelBox((z, 0, 0), (1, height, width))

    def _tiles(self, name: str, z: int) -> Iterator[np.ndarray]:
        """Section `z` of an array, in tiles."""
        array = self.group[name]
        height, width = array.shape[-2:]
        for box in blocks(VoxelBox((z, 0, 0), (1, height, width)), (1, 2048, 2048)):
            yield np.asarray(array[(..., *box.slices())])

    def note(self, z: int, **facts: float) -> None:
        """Records a section as finished, and writes its shards."""
        for name in self.names:
            array = self.group[name]
            whole = [slice(0, size) for size in array.shape]
            write_complete_shards(array, (*whole[:-3], slice(z, z + 1), *whole[-2:]))
        self.journal.note(self._box(z), self._checksum(z), **facts)

    def _checksum(self, z: int) -> str:
        return checksum(tile for name in self.names for tile in self._tiles(name, z))

    def has_section(self, z: int) -> bool:
        """Whether a section is finished and its bytes are unchanged."""
        expected = self.journal.checksum_of(self._box(z))
        if expected is None:
            return False
        stored = if_intact(lambda: self._checksum(z), self.store)
        if stored is None:
            for name in self.names:
                shape = triple([1, *self.group[name].shape[-2:]])
                drop_damaged(self.group[name], self.store / name, VoxelBox((z, 0, 0), shape))
        return stored == expected

    def seconds(self) -> float:
        """Seconds spent on all sections but the first, in all runs."""
        depth = self.sections.box.shape[0]
        return float(sum(self.facts(z).get("seconds", 0) for z in range(1, depth)))

    def facts(self, z: int) -> dict[str, Any]:
        """What was noted of a finished section."""
        return self.journal.facts(self._box(z))

    def volume(self, name: str) -> Volume:
        """An array of the store as a volume."""
        like = self.fine if name == RENDERED and self.fine is not None else self.sections
        return Volume(self.group[name], like.voxel_size_nm, like.offset_nm, f"{self.store}/{name}")
