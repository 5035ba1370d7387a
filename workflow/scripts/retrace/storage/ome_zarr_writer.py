"""Writes volumes as OME-Zarr images with all levels (format 0.4 or 0.5), resumable.

Format: ngff.openmicroscopy.org, `multiscales` and, for ids, `image-label`. Levels are reduced
like the mips of precomputed layers, but from the volume's own corner. The first voxel's centre of a
level is then half the growth of the voxel size beyond that of level 0, as the format requires.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.geometry import NmTriple, Triple, VoxelBox, blocks, in_nm, nm_triple, triple
from retrace.reading import DamagedError
from retrace.setting_types import ZarrFormat
from retrace.storage.layer_formats import ExportedLayer, Write
from retrace.storage.precomputed_writer import LAYER_CHUNK, LayerPlan, LayerWriter, Mip, all_mips
from retrace.storage.unfinished import ShardedArray, finish, sharded_array
from retrace.storage.volumes import Volume, open_volume
from retrace.storage.zarr_writer import COMPRESSOR, create_volume, ome_attributes


def shifted_to_origin(
    volume: Volume, box: VoxelBox, *, labels: bool
) -> tuple[Volume, LayerPlan, NmTriple]:
    """The volume shifted so that `box` starts at 0, its levels, and the start of `box` in nm.

    `labels`: whether it has ids: coarser levels take the most frequent id instead of the mean.
    """
    begin = in_nm(box.offset, volume.voxel_size_nm)
    at_origin = nm_triple([o - b for o, b in zip(volume.offset_nm, begin, strict=True)])
    mips = all_mips(volume.voxel_size_nm, VoxelBox((0, 0, 0), box.shape))
    plan = LayerPlan(mips, volume.dtype.name, volume.channels, labels, gzip=False)
    return replace(volume, offset_nm=at_origin), plan, begin


class OmeZarrWriter(LayerWriter):
    """Writes an image, or an image of ids; array N of the store is its level N."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        plan: LayerPlan,
        *,
        name: str,
        offset_nm: NmTriple,
        zarr_format: ZarrFormat,
    ) -> None:
        self.name, self.offset_nm, self.zarr_format = name, offset_nm, zarr_format
        self._levels: dict[Path, ShardedArray | None] = {}
        super().__init__(folder, work, plan)

    def _describe(self) -> None:
        """Creates all arrays, then the metadata; starts again if a run stopped in between."""
        attrs = self._attrs()
        if self._group().attrs.asdict() == attrs:
            return
        shutil.rmtree(self.folder)
        for level, mip in enumerate(self.plan.mips):
            self._create(level, mip)
        self._group().attrs.put(attrs)

    def _group(self) -> zarr.Group:
        return zarr.open_group(self.folder, mode="a", zarr_format=self.zarr_format)

    def _create(self, level: int, mip: Mip) -> None:
        lead = (self.plan.channels,) if self.plan.channels else ()
        create_volume(
            self.folder,
            str(level),
            shape=(*lead, *mip.box.shape),
            chunks=(*lead, *self._edges(mip)),
            dtype=self.plan.dtype,
            voxel_size_nm=mip.voxel_size_nm,
            offset_nm=self.offset_nm,
            zarr_format=self.zarr_format,
        )

    def _attrs(self) -> dict[str, Any]:
        """The attributes of the image's group."""
        space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
        channel = [{"name": "c", "type": "channel"}] if self.plan.channels else []
        image = {
            "name": self.name,
            "axes": [*channel, *space],
            "datasets": [self._dataset(level) for level in range(len(self.plan.mips))],
            "type": "mode" if self.plan.labels else "mean",
        }
        return ome_attributes(self.zarr_format, [image], self.plan.labels)

    def _dataset(self, level: int) -> dict[str, Any]:
        """Voxel size of a level, and its first voxel's centre as an offset to that of level 0."""
        finest, size = self.plan.mips[0].voxel_size_nm, self.plan.mips[level].voxel_size_nm
        axes = zip(self.offset_nm, size, finest, strict=True)
        start = nm_triple([offset + (coarse - fine) / 2 for offset, coarse, fine in axes])
        one, zero = ([1.0], [0.0]) if self.plan.channels else ([], [])
        scale = {"type": "scale", "scale": one + [float(edge) for edge in size]}
        translation = {"type": "translation", "translation": zero + [float(nm) for nm in start]}
        return {"path": str(level), "coordinateTransformations": [scale, translation]}

    def _open(self, index: int) -> Volume:
        finish(self.folder / str(index))
        return replace(open_volume(self.folder, str(index)), offset_nm=(0, 0, 0))

    def _edges(self, mip: Mip) -> Triple:
        return triple([min(c, s) for c, s in zip(LAYER_CHUNK, mip.box.shape, strict=True)])

    def _encoded(self, mip: Mip, data: np.ndarray) -> bytes:
        """The bytes of a full chunk, padded with 0 beyond the border."""
        lead = data.ndim - 3
        missing = zip(self._edges(mip), data.shape[lead:], strict=True)
        whole = np.pad(data, [(0, 0)] * lead + [(0, edge - size) for edge, size in missing])
        return bytes(COMPRESSOR.encode(np.ascontiguousarray(whole)))

    def _chunks(self, mip: Mip, block: VoxelBox) -> Iterator[tuple[Path, VoxelBox]]:
        level = self.folder / str(self.plan.mips.index(mip))
        lead = (0,) if self.plan.channels else ()
        for box in blocks(block, LAYER_CHUNK):
            index = (*lead, *(o // c for o, c in zip(box.offset, LAYER_CHUNK, strict=True)))
            sharded = self._sharded_array(level)
            file = sharded.loose(index) if sharded else level.joinpath(*map(str, index))
            file.parent.mkdir(parents=True, exist_ok=True)
            yield file, box

    def _sharded_array(self, level: Path) -> ShardedArray | None:
        """The files of a level of format 3, None for one of format 2."""
        if level not in self._levels:
            self._levels[level] = sharded_array(level)
        return self._levels[level]

    def _stored(self, file: Path) -> bytes | None:
        sharded = self._sharded_array(file.parents[2]) if self.zarr_format == 3 else None
        if sharded is None:
            return super()._stored(file)
        try:
            return sharded.encoded(tuple(map(int, file.name.split("."))))
        except DamagedError:
            return None


def plan_ome_zarr(layer: ExportedLayer) -> tuple[LayerPlan, Write]:
    """The levels of an exported layer, and a function that writes them."""
    moved, plan, begin = shifted_to_origin(layer.volume, layer.box, labels=layer.labels)

    def write(folder: Path, work: Path) -> dict[str, str]:
        writer = OmeZarrWriter(
            folder, work, plan, name=layer.name, offset_nm=begin, zarr_format=layer.zarr_format
        )
        return writer.write(moved, layer.threads)

    return plan, write
