"""Pieces of segments' meshes and skeletons, one folder of arrays for each block.

A piece is what one block contributes to one segment. Its vertices are in voxels (z, y, x) from the
world's origin, a whole number at the centre of a voxel. What neighbouring blocks share is equal bit
for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from retrace.reading import if_intact
from retrace.storage.block_journal import checksum

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Vertices (V, 3) float64, triangles (F, 3) or edges (F, 2) int32, radii (V,) float32, nm.

Meshes have radii of 0."""
PARTS = ("ids", "voxels", "ends", "vertices", "links", "radii")


@dataclass(frozen=True)
class BlockPieces:
    """All pieces of a block, one after the other, in the order of `ids`."""

    ids: np.ndarray
    """(N,) uint64, rising."""
    voxels: np.ndarray
    """(N,) int64: voxels of each segment in the block."""
    ends: np.ndarray
    """(N + 1, 2) int64: where the vertices and links of each piece begin; the last row: the end."""
    vertices: np.ndarray
    links: np.ndarray
    radii: np.ndarray

    def piece(self, row: int) -> Piece:
        """The piece in a row."""
        (first, begin), (last, end) = self.ends[row], self.ends[row + 1]
        vertices, radii = self.vertices[first:last], self.radii[first:last]
        return np.asarray(vertices), np.asarray(self.links[begin:end]), np.asarray(radii)

    @property
    def checksum(self) -> str:
        """16 hex digits over all arrays."""
        return checksum(getattr(self, part) for part in PARTS)


def joined(pieces: Mapping[int, Piece], voxels: Mapping[int, int], corners: int) -> BlockPieces:
    """The pieces of a block by the id of the segment; `corners` of a link: 3, or 2 for edges."""
    ids = sorted(pieces.keys() | voxels.keys())
    empty = np.empty((0, 3)), np.empty((0, corners), np.int32), np.empty(0, np.float32)
    parts = [pieces.get(i, empty) for i in ids]
    lengths = [(0, 0), *((len(v), len(f)) for v, f, _ in parts)]
    vertices, links, radii = zip(*[empty, *parts], strict=True)
    return BlockPieces(
        np.array(ids, np.uint64),
        np.array([voxels.get(i, 0) for i in ids], np.int64),
        np.cumsum(lengths, axis=0, dtype=np.int64),
        np.concatenate(vertices).astype(np.float64),
        np.concatenate(links).astype(np.int32),
        np.concatenate(radii).astype(np.float32),
    )


class PieceStore:
    """The pieces of all blocks of one kind, in a folder that keeps the progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened = lru_cache(maxsize=32)(self.open)

    def write(self, number: int, pieces: BlockPieces) -> None:
        """Writes the pieces of block `number`."""
        folder = self.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            np.save(folder / f"{part}.npy", getattr(pieces, part))

    def open(self, number: int) -> BlockPieces:
        """The pieces of block `number`, of which only those are read that are used."""
        files = (self.folder / str(number) / f"{part}.npy" for part in PARTS)
        return BlockPieces(*[np.load(file, mmap_mode="r") for file in files])

    def is_intact(self, number: int, expected: str | None) -> bool:
        """Whether block `number` was written, with the checksum `expected`."""
        folder = self.folder / str(number)
        if expected is None or not all((folder / f"{part}.npy").is_file() for part in PARTS):
            return False
        found = if_intact(partial(self._checksum, number), folder)
        return found == expected

    def _checksum(self, number: int) -> str:
        return self.open(number).checksum

    def segments(
        self, blocks: int, min_voxels: int, chosen: Sequence[int] | None
    ) -> Iterator[tuple[int, list[Piece]]]:
        """Each segment with its pieces, in the order of ids and blocks.

        `blocks`: how many there are. Segments with fewer than `min_voxels` in all blocks, and those
        that are not `chosen`, are left out.
        """
        opened = [self.open(number) for number in range(blocks)]
        ids = np.concatenate([np.asarray(block.ids) for block in opened])
        voxels = np.concatenate([np.asarray(block.voxels) for block in opened])
        numbers = np.repeat(np.arange(blocks), [len(block.ids) for block in opened])
        rows = np.concatenate([np.arange(len(block.ids)) for block in opened])
        del opened
        order = np.argsort(ids, kind="stable")
        names, begins = np.unique(ids[order], return_index=True)
        for name, own in zip(names.tolist(), np.split(order, begins[1:]), strict=True):
            if (voxels[own].sum() >= min_voxels) if chosen is None else name in chosen:
                where = zip(numbers[own].tolist(), rows[own].tolist(), strict=True)
                pieces = [self._opened(number).piece(row) for number, row in where]
                yield name, [piece for piece in pieces if len(piece[0])]
