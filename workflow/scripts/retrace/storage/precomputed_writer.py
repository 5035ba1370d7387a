"""Volumes as precomputed layers: all mips, chunk by chunk, resumable.

Format: github.com/google/neuroglancer, src/datasource/precomputed/volume.md. Ids are written in
compressed_segmentation, everything else raw; gzip on top gives files NAME.gz, as cloud-files reads
and uploads them.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.progress import progress
from retrace.storage.block_journal import Journal, checksum
from retrace.storage.volumes import Volume, open_volume

CHUNK: Triple = (64, 64, 64)
BLOCK: Triple = (64, 256, 256)
"""What is read and reduced at once, voxels of one mip; whole chunks."""
ID_BLOCK = (8, 8, 8)
"""Voxels that share a table of ids in compressed_segmentation, as most programs choose them."""
SMALLEST = 256
"""A mip whose edges are all this long or shorter is the last."""
LABEL_TYPES = ("uint32", "uint64")
IMAGE_TYPES = ("uint8", "uint16", "uint32", "float32")


@dataclass(frozen=True)
class Mip:
    """One resolution: voxels of `voxel_size_nm` in `box`, `factor` smaller than those before."""

    voxel_size_nm: Triple
    box: VoxelBox
    factor: Triple = (1, 1, 1)

    @property
    def key(self) -> str:
        return "_".join(str(size) for size in self.voxel_size_nm[::-1])


@dataclass(frozen=True)
class LayerPlan:
    """What a layer is: its mips, type, channels (0: none), and how chunks are stored."""

    mips: tuple[Mip, ...]
    dtype: str
    channels: int
    labels: bool
    gzip: bool

    @property
    def encoding(self) -> str:
        return "compressed_segmentation" if self.labels else "raw"

    def info(self) -> dict[str, Any]:
        """The file `info`."""
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if self.labels else "image",
            "data_type": self.dtype,
            "num_channels": self.channels or 1,
            "scales": [self._scale(mip) for mip in self.mips],
        }

    def _scale(self, mip: Mip) -> dict[str, Any]:
        found: dict[str, Any] = {
            "key": mip.key,
            "resolution": list(mip.voxel_size_nm[::-1]),
            "voxel_offset": list(mip.box.offset[::-1]),
            "size": list(mip.box.shape[::-1]),
            "chunk_sizes": [list(CHUNK[::-1])],
            "encoding": self.encoding,
        }
        if self.labels:
            found["compressed_segmentation_block_size"] = list(ID_BLOCK)
        return found


def coarser(mip: Mip) -> Mip:
    """The next mip: edges are doubled that are not twice the shortest already.

    Its voxels lie on the grid of the world, so that every mip covers the same place.
    """
    size, shortest = mip.voxel_size_nm, min(mip.voxel_size_nm)
    factor = triple([2 if edge < 2 * shortest else 1 for edge in size])
    begin = [o // f for o, f in zip(mip.box.offset, factor, strict=True)]
    end = [-(-e // f) for e, f in zip(mip.box.end, factor, strict=True)]
    shape = [e - b for b, e in zip(begin, end, strict=True)]
    larger = triple([edge * f for edge, f in zip(size, factor, strict=True)])
    return Mip(larger, VoxelBox(triple(begin), triple(shape)), factor)


def all_mips(voxel_size_nm: Triple, box: VoxelBox) -> tuple[Mip, ...]:
    """The finest mip and the coarser ones, until every edge is short."""
    found = [Mip(voxel_size_nm, box)]
    while max(found[-1].box.shape) > SMALLEST:
        found.append(coarser(found[-1]))
    return tuple(found)


def plan_layer(volume: Volume, box: VoxelBox, *, labels: bool, compress: bool) -> LayerPlan:
    """The layer of `box` of a volume; DataError for a type that neuroglancer does not know."""
    known = LABEL_TYPES if labels else IMAGE_TYPES
    if volume.dtype.name not in known:
        raise DataError(
            f"{volume.name} is {volume.dtype.name}; a layer of {'ids' if labels else 'images'} is "
            f"one of {', '.join(known)}. Convert it first"
        )
    mips = all_mips(volume.voxel_size_nm, box)
    return LayerPlan(mips, volume.dtype.name, volume.channels, labels, compress)


class LayerWriter:
    """A layer under construction in `folder`; what is done of it is noted in `work`."""

    def __init__(self, folder: Path, work: Path, plan: LayerPlan) -> None:
        self.folder, self.work, self.plan = folder, work, plan
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.rglob(".*.partial"):
            leftover.unlink()
        self._describe()

    def _describe(self) -> None:
        """Metadata come before the first chunk: coarser mips are made of finer ones, read back."""
        atomic_write(self.folder / "info", json.dumps(self.plan.info(), indent=1) + "\n")
        for mip in self.plan.mips:
            (self.folder / mip.key).mkdir(exist_ok=True)

    def _open(self, index: int) -> Volume:
        """A mip that is finished."""
        return open_volume(f"file://{self.folder.resolve()}", mip=index)

    def write(self, volume: Volume, threads: int) -> None:
        """All mips, the finest from `volume`, each further one from that before."""
        for index, mip in enumerate(self.plan.mips):
            finer = volume if index == 0 else self._open(index - 1)
            self._write_mip(index, mip, finer, threads)

    def _write_mip(self, index: int, mip: Mip, finer: Volume, threads: int) -> None:
        journal = Journal(self.work, f"mip_{index}.jsonl")
        missing = [b for b in blocks(mip.box, BLOCK) if not self._holds(journal, mip, b)]
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(lambda block: self._write_block(mip, finer, block), missing)
            pairs = zip(missing, done, strict=True)
            for block, found in progress(pairs, len(missing), f"mip {index}", "blocks"):
                journal.note(block, found)

    def _write_block(self, mip: Mip, finer: Volume, block: VoxelBox) -> str:
        """Writes the chunks of a block; their checksum."""
        data = reduced(finer, block, mip.factor, self.plan.labels)
        written = []
        for file, box in self._chunks(mip, block):
            body = self._encoded(mip, data[(..., *box.slices(block.offset))])
            partial = file.with_name(f".{file.name}.partial")
            partial.write_bytes(body)
            partial.replace(file)
            written.append(np.frombuffer(body, np.uint8))
        return checksum(written)

    def _encoded(self, mip: Mip, data: np.ndarray) -> bytes:
        """The bytes of one chunk of `mip`, (Z, Y, X) or (C, Z, Y, X)."""
        return encoded(data, self.plan)

    def _chunks(self, mip: Mip, block: VoxelBox) -> Iterator[tuple[Path, VoxelBox]]:
        for box in blocks(block, CHUNK):
            ends = zip(box.offset[::-1], box.end[::-1], strict=True)
            name = "_".join(f"{begin}-{end}" for begin, end in ends)
            yield self.folder / mip.key / (f"{name}.gz" if self.plan.gzip else name), box

    def _holds(self, journal: Journal, mip: Mip, block: VoxelBox) -> bool:
        """Whether a block is done and its bytes are what was written."""
        expected = journal.checksum_of(block)
        files = [file for file, _ in self._chunks(mip, block)] if expected else []
        if not files or not all(file.is_file() for file in files):
            return False
        return checksum(np.fromfile(file, np.uint8) for file in files) == expected


def encoded(data: np.ndarray, plan: LayerPlan) -> bytes:
    """The bytes of one chunk (Z, Y, X) or (C, Z, Y, X); the same for the same voxels."""
    from cloudvolume import chunks

    data_xyzc = data.T if data.ndim == 4 else data.T[..., None]
    body = bytes(chunks.encode(np.asfortranarray(data_xyzc), plan.encoding, ID_BLOCK))
    return gzip.compress(body, mtime=0) if plan.gzip else body


def reduced(finer: Volume, block: VoxelBox, factor: Triple, labels: bool) -> np.ndarray:
    """The voxels of `block` of a mip, of those of the finer one; it may reach past their border.

    Ids: the most frequent of a voxel's own, the greatest of several; images: the mean.
    """
    offset = triple([o * f for o, f in zip(block.offset, factor, strict=True)])
    wanted = VoxelBox(offset, triple([s * f for s, f in zip(block.shape, factor, strict=True)]))
    inside = wanted.intersect(finer.box)
    data = finer.read(inside)
    if wanted != inside:
        around = zip(wanted.offset, wanted.end, inside.offset, inside.end, strict=True)
        edges = [(b - a, c - d) for a, c, b, d in around]
        data = np.pad(data, [(0, 0)] * (data.ndim - 3) + edges, mode="edge")
    if factor == (1, 1, 1):
        return data
    steps: list[tuple[Any, ...]] = [
        (..., *(slice(i, None, f) for i, f in zip(start, factor, strict=True)))
        for start in product(*map(range, factor))
    ]
    parts = np.stack([data[step] for step in steps])
    return most_frequent(parts) if labels else mean(parts)


def most_frequent(parts: np.ndarray) -> np.ndarray:
    """Along the first axis of (N, ...): the most frequent value, the greatest of several."""
    parts = np.sort(parts, axis=0)
    best, best_run = parts[0], np.ones(parts.shape[1:], np.int8)
    run = best_run
    for before, value in zip(parts, parts[1:], strict=False):
        run = np.where(value == before, run + 1, 1).astype(np.int8)
        best, best_run = np.where(run >= best_run, value, best), np.maximum(run, best_run)
    return best


def mean(parts: np.ndarray) -> np.ndarray:
    """Along the first axis of (N, ...): the mean, rounded half up for whole numbers."""
    found = parts.mean(axis=0, dtype=np.float64)
    return (np.floor(found + 0.5) if parts.dtype.kind in "ui" else found).astype(parts.dtype)


def write_layer(
    folder: Path, data: np.ndarray, voxel_size_nm: Sequence[int], offset: Sequence[int]
) -> None:
    """An array (Z, Y, X) in memory as an image of one mip; `offset` of its first voxel, voxels."""
    size, box = triple(voxel_size_nm), VoxelBox(triple(offset), triple(data.shape))
    volume = Volume(data, size, box.to_nm(size).offset, str(folder))
    plan = plan_layer(volume, box, labels=False, compress=False)
    plan = replace(plan, mips=plan.mips[:1])
    work = folder.with_name(f"{folder.name}.work")
    LayerWriter(folder, work, plan).write(volume, 1)
    shutil.rmtree(work)
