"""Writes the meshes and skeletons of a precomputed layer into its folder, resumable.

First each block yields its pieces, which are kept with a journal; then the pieces of each segment
become its files. Memory: one block for each thread, and the pieces of the largest segment.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrace.config.export_model import ShapeSettings
from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.progress import progress
from retrace.reading import read_json_object
from retrace.shapes import meshes, skeletons
from retrace.shapes.formats import (
    MESH_INFO,
    SKELETON_INFO,
    mesh_bytes,
    obj_bytes,
    skeleton_bytes,
    swc_bytes,
)
from retrace.shapes.pieces import BlockPieces, Piece, PieceStore, joined
from retrace.storage.block_journal import Journal
from retrace.storage.manifest import LAYER_INFO
from retrace.storage.precomputed_writer import GZIP_LEVEL
from retrace.storage.volumes import Volume, open_volume

SHAPE_BLOCK: Triple = (256, 256, 256)
"""Voxels of a block. Simplified meshes and skeletons depend on it."""


@dataclass
class ShapeWriter:
    """Meshes and skeletons of a finished layer in `folder`; `work` keeps the progress."""

    folder: Path
    work: Path
    settings: ShapeSettings
    gzip: bool
    block_shape: Triple = field(default_factory=lambda: SHAPE_BLOCK)
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 (hex) of each file of meshes and skeletons, by its path below the layer."""
    files: list[str] = field(default_factory=list)
    """Paths of OBJ and SWC files below the layer."""

    def __post_init__(self) -> None:
        place = f"file://{self.folder.resolve()}"
        self.volume: Volume = open_volume(place, mip=self.settings.mip)
        self.blocks = list(blocks(self.volume.box, self.block_shape))

    def write(self, threads: int) -> None:
        """Writes what the settings ask for, and names it in the layer's `info`."""
        if self.settings.meshes:
            self._write_kind("mesh", MESH_INFO, self._block_surfaces, self._mesh_files, threads)
        if self.settings.skeletons:
            self._write_kind(
                "skeletons", SKELETON_INFO, self._block_skeletons, self._skeleton_files, threads
            )

    def _write_kind(
        self,
        kind: str,
        info: Mapping[str, Any],
        pieces_of: Callable[[VoxelBox], BlockPieces],
        files_of: Callable[[int, list[Piece]], dict[str, bytes]],
        threads: int,
    ) -> None:
        """Writes the folder `kind` and its files."""
        store = self._pieces(kind, pieces_of, threads)
        (self.folder / kind).mkdir(exist_ok=True)
        self._put(f"{kind}/info", json.dumps(info, indent=1).encode())
        chosen, written = self.settings.segments, set()
        segments = store.segments(len(self.blocks), self.settings.min_voxels, chosen)
        for name, pieces in segments:
            written.add(name)
            for path, body in files_of(name, pieces).items() if pieces else ():
                self._put(path, body)
        if absent := set(chosen or ()) - written:
            raise DataError(_absent(sorted(absent)))
        layer = read_json_object(self.folder / LAYER_INFO)
        atomic_write(self.folder / LAYER_INFO, json.dumps({**layer, kind: kind}, indent=1) + "\n")

    def _pieces(
        self, kind: str, pieces_of: Callable[[VoxelBox], BlockPieces], threads: int
    ) -> PieceStore:
        """The pieces of all blocks; those of an earlier run are kept."""
        store, journal = PieceStore(self.work / kind), Journal(self.work, f"{kind}.jsonl")
        missing = [
            (number, block)
            for number, block in enumerate(self.blocks)
            if not store.is_intact(number, journal.checksum_of(block))
        ]

        def work(entry: tuple[int, VoxelBox]) -> str:
            pieces = pieces_of(entry[1])
            store.write(entry[0], pieces)
            return pieces.checksum

        with ThreadPoolExecutor(threads) as pool:
            pairs = zip(missing, pool.map(work, missing), strict=True)
            for (_, block), value in progress(pairs, len(missing), kind, "blocks"):
                journal.note(block, value)
        return store

    def _put(self, path: str, body: bytes) -> None:
        """Writes a file of the layer; under the name NAME.gz if the layer is compressed."""
        if path.endswith(("obj", "swc")):
            self.files.append(path)
        elif self.gzip and not path.endswith("info"):
            path, body = f"{path}.gz", gzip.compress(body, GZIP_LEVEL, mtime=0)
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_bytes(body)
        self.digests[path] = hashlib.sha256(body).hexdigest()

    def _labels(self, block: VoxelBox, window: VoxelBox) -> tuple[np.ndarray, dict[int, int]]:
        """The ids (Z, Y, X) of a window, and the voxels of each segment in its block.

        Outside the volume, and for segments that are not chosen, ids are 0.
        """
        import fastremap

        labels = self.volume.read(window, fill=0)
        if self.settings.segments is not None:
            labels = fastremap.mask_except(labels, list(self.settings.segments))
        inside = labels[block.slices(window.offset)]
        ids, counts = fastremap.unique(inside, return_counts=True)
        voxels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        voxels.pop(0, None)
        return labels, voxels

    def _neighbours(self, block: VoxelBox) -> list[skeletons.Face]:
        """The sides of a block at which another one follows."""
        sides = zip(
            block.offset, block.end, self.volume.box.offset, self.volume.box.end, strict=True
        )
        return [
            (axis, side)
            for axis, (begin, end, first, last) in enumerate(sides)
            for side, follows in (("low", begin > first), ("high", end < last))
            if follows
        ]

    def _block_surfaces(self, block: VoxelBox) -> BlockPieces:
        """Surfaces between the voxels of a block and those after them, closed around the volume."""
        before = [int(b == f) for b, f in zip(block.offset, self.volume.box.offset, strict=True)]
        window = _extended(block, before, (1, 1, 1))
        labels, voxels = self._labels(block, window)
        size, share = self.volume.voxel_size_nm, self.settings.triangles
        return joined(meshes.surfaces(labels, window.offset, size, share), voxels, corners=3)

    def _block_skeletons(self, block: VoxelBox) -> BlockPieces:
        faces = self._neighbours(block)
        after = [int((axis, "high") in faces) for axis in range(3)]
        window = _extended(block, (0, 0, 0), after)
        labels, voxels = self._labels(block, window)
        pieces = skeletons.centrelines(
            labels,
            window.offset,
            faces,
            self.volume.voxel_size_nm,
            self.settings.skeleton_scale,
            self.settings.skeleton_constant_nm,
        )
        return joined(pieces, voxels, corners=2)

    def _nm(self, vertices: np.ndarray) -> np.ndarray:
        """Positions (V, 3) in nm, x, y, z; voxel 0 has its centre at half a voxel."""
        return ((vertices + 0.5) * np.array(self.volume.voxel_size_nm))[:, ::-1]

    def _mesh_files(self, name: int, pieces: list[Piece]) -> dict[str, bytes]:
        vertices, triangles = meshes.merged(pieces)
        place = self._nm(vertices)
        index = json.dumps({"fragments": [f"{name}.mesh"]}).encode()
        files = {f"mesh/{name}:0": index, f"mesh/{name}.mesh": mesh_bytes(place, triangles)}
        if "obj" in self.settings.files:
            files[f"obj/{name}.obj"] = obj_bytes(place, triangles)
        return files

    def _skeleton_files(self, name: int, pieces: list[Piece]) -> dict[str, bytes]:
        vertices, edges, radii = skeletons.merged(pieces, self.volume.voxel_size_nm)
        place = self._nm(vertices)
        files = {f"skeletons/{name}": skeleton_bytes(place, edges, radii)}
        if "swc" in self.settings.files:
            files[f"swc/{name}.swc"] = swc_bytes(place, edges, radii)
        return files


def _extended(box: VoxelBox, before: Sequence[int], after: Sequence[int]) -> VoxelBox:
    """A box with so many more voxels (z, y, x) on its low and its high sides."""
    offset = [o - b for o, b in zip(box.offset, before, strict=True)]
    shape = [s + b + a for s, b, a in zip(box.shape, before, after, strict=True)]
    return VoxelBox(triple(offset), triple(shape))


def _absent(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:10])) + (" …" if len(ids) > 10 else "")
    return (
        f"`export: segments` names {shown}, but the segmentation has no such segment; neuroglancer "
        "shows the id under the pointer"
    )
