"""Writes volumes as precomputed layers with all mips, resumable. Converts z, y, x to x, y, z.

Format: github.com/google/neuroglancer, src/datasource/precomputed/volume.md. Ids are encoded as
compressed_segmentation, images as raw. With gzip, files are called NAME.gz, as cloud-files reads
and uploads them.
"""

from __future__ import annotations

import gzip
import hashlib
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
from retrace.geometry import NmTriple, Triple, VoxelBox, blocks, checked_voxel_size, triple
from retrace.progress import progress
from retrace.storage.block_journal import Journal, checksum
from retrace.storage.layer_formats import ExportedLayer, Write
from retrace.storage.unfinished import remove_partial_files
from retrace.storage.volumes import Volume, open_volume

LAYER_CHUNK: Triple = (64, 64, 64)
LAYER_BLOCK: Triple = (64, 256, 256)
"""Voxels of a mip that are reduced and written at once; several whole chunks."""
ID_BLOCK = (8, 8, 8)
"""Blocks of compressed_segmentation with a table of ids each; the size that most programs use."""
LAST_MIP_EDGE = 256
"""The last mip has no edge longer than this, in voxels."""
GZIP_LEVEL = 5
"""Level 9 makes chunks of ids 2 % smaller, in ten times the time."""
LABEL_TYPES = ("uint32", "uint64")
IMAGE_TYPES = ("uint8", "uint16", "uint32", "float32")


@dataclass(frozen=True)
class Mip:
    """One resolution: `box` in voxels of `voxel_size_nm`, `factor` times those of the last mip."""

    voxel_size_nm: NmTriple
    box: VoxelBox
    factor: Triple = (1, 1, 1)

    @property
    def key(self) -> str:
        """The folder of its chunks: the voxel size in the order x, y, z."""
        return "_".join(str(size) for size in self.voxel_size_nm[::-1])


@dataclass(frozen=True)
class LayerPlan:
    """A layer's mips, dtype, channels (0: none), and whether it has ids and gzipped chunks."""

    mips: tuple[Mip, ...]
    dtype: str
    channels: int
    labels: bool
    gzip: bool

    @property
    def encoding(self) -> str:
        """The encoding of its chunks."""
        return "compressed_segmentation" if self.labels else "raw"

    def info(self) -> dict[str, Any]:
        """The content of the file `info`."""
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if self.labels else "image",
            "data_type": self.dtype,
            "num_channels": self.channels or 1,
            "scales": [self._scale(mip) for mip in self.mips],
        }

    def _scale(self, mip: Mip) -> dict[str, Any]:
        scale: dict[str, Any] = {
            "key": mip.key,
            "resolution": list(mip.voxel_size_nm[::-1]),
            "voxel_offset": list(mip.box.offset[::-1]),
            "size": list(mip.box.shape[::-1]),
            "chunk_sizes": [list(LAYER_CHUNK[::-1])],
            "encoding": self.encoding,
        }
        if self.labels:
            scale["compressed_segmentation_block_size"] = list(ID_BLOCK)
        return scale


def coarser(mip: Mip) -> Mip:
    """The next mip: doubles every voxel edge that is less than twice the shortest one.

    Its grid starts at the world's origin, so that all mips cover the same region.
    """
    size, shortest = mip.voxel_size_nm, min(mip.voxel_size_nm)
    factor = triple([2 if edge < 2 * shortest else 1 for edge in size])
    begin = [o // f for o, f in zip(mip.box.offset, factor, strict=True)]
    end = [-(-e // f) for e, f in zip(mip.box.end, factor, strict=True)]
    shape = [e - b for b, e in zip(begin, end, strict=True)]
    coarser_size = checked_voxel_size([edge * f for edge, f in zip(size, factor, strict=True)])
    return Mip(coarser_size, VoxelBox(triple(begin), triple(shape)), factor)


def all_mips(voxel_size_nm: NmTriple, box: VoxelBox) -> tuple[Mip, ...]:
    """The finest mip and all coarser ones, down to one without edges above LAST_MIP_EDGE."""
    mips = [Mip(voxel_size_nm, box)]
    while max(mips[-1].box.shape) > LAST_MIP_EDGE:
        mips.append(coarser(mips[-1]))
    return tuple(mips)


def plan_layer(volume: Volume, box: VoxelBox, *, labels: bool, compress: bool) -> LayerPlan:
    """The plan for `box` of a volume; DataError for a dtype that neuroglancer cannot show.

    Floats of 16 and 64 bits become 32 bits.
    """
    is_float = volume.dtype.kind == "f" and not labels
    dtype = "float32" if is_float else volume.dtype.name
    allowed = LABEL_TYPES if labels else IMAGE_TYPES
    if dtype not in allowed:
        kind, remedy = "images", "add `normalize: {percentiles: [1, 99]}` to this raw"
        if labels:
            kind, remedy = "ids", "export format `ome_zarr`, which keeps the type"
        raise DataError(
            f"{volume.name} is {dtype}; a layer of {kind} is one of {', '.join(allowed)}: {remedy}"
        )
    mips = all_mips(volume.voxel_size_nm, box)
    return LayerPlan(mips, dtype, volume.channels, labels, compress)


class LayerWriter:
    """Writes a layer into `folder`, with a journal of finished blocks in `work`."""

    def __init__(self, folder: Path, work: Path, plan: LayerPlan) -> None:
        self.folder, self.work, self.plan = folder, work, plan
        self._digests: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
        self._describe()

    def _describe(self) -> None:
        """Writes the metadata before the first chunk: coarser mips are reduced from finer ones."""
        atomic_write(self.folder / "info", json.dumps(self.plan.info(), indent=1) + "\n")
        for mip in self.plan.mips:
            (self.folder / mip.key).mkdir(exist_ok=True)

    def _open(self, index: int) -> Volume:
        """A finished mip, for reading."""
        return open_volume(f"file://{self.folder.resolve()}", mip=index)

    def write(self, volume: Volume, threads: int) -> dict[str, str]:
        """Writes all mips: the finest from `volume`, each coarser one from the mip before it.

        Returns the SHA-256 (hex) of each chunk by its path below the layer, for its manifest.
        """
        for index, mip in enumerate(self.plan.mips):
            finer = volume if index == 0 else self._open(index - 1)
            self._write_mip(index, mip, finer, threads)
        return self._digests

    def _write_mip(self, index: int, mip: Mip, finer: Volume, threads: int) -> None:
        journal = Journal(self.work, f"mip_{index}.jsonl")
        missing = [b for b in blocks(mip.box, LAYER_BLOCK) if not self._is_done(journal, mip, b)]
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(lambda block: self._write_block(mip, finer, block), missing)
            pairs = zip(missing, done, strict=True)
            for block, value in progress(pairs, len(missing), f"mip {index}", "blocks"):
                journal.note(block, value)

    def _write_block(self, mip: Mip, finer: Volume, block: VoxelBox) -> str:
        """Writes the chunks of a block and returns their checksum."""
        data = reduced(finer, block, mip.factor, self.plan.labels)
        data = data.astype(self.plan.dtype, copy=False)
        written = []
        for file, box in self._chunks(mip, block):
            body = self._encoded(mip, data[(..., *box.slices(block.offset))])
            partial = file.with_name(f".{file.name}.partial")
            partial.write_bytes(body)
            partial.replace(file)
            self._note(file, body)
            written.append(np.frombuffer(body, np.uint8))
        return checksum(written)

    def _encoded(self, mip: Mip, data: np.ndarray) -> bytes:
        """The bytes of one chunk of `mip`; `data` (Z, Y, X) or (C, Z, Y, X)."""
        return encoded(data, self.plan)

    def _chunks(self, mip: Mip, block: VoxelBox) -> Iterator[tuple[Path, VoxelBox]]:
        """The file and the box of each chunk of a block."""
        for box in blocks(block, LAYER_CHUNK):
            ends = zip(box.offset[::-1], box.end[::-1], strict=True)
            name = "_".join(f"{begin}-{end}" for begin, end in ends)
            yield self.folder / mip.key / (f"{name}.gz" if self.plan.gzip else name), box

    def _is_done(self, journal: Journal, mip: Mip, block: VoxelBox) -> bool:
        """Whether a block is in the journal and its files still have the same bytes."""
        expected = journal.checksum_of(block)
        files = [file for file, _ in self._chunks(mip, block)] if expected else []
        stored = [self._stored(file) for file in files]
        bodies = [body for body in stored if body is not None]
        if not files or len(bodies) < len(files):
            return False
        if checksum(np.frombuffer(body, np.uint8) for body in bodies) != expected:
            return False
        for file, body in zip(files, bodies, strict=True):
            self._note(file, body)
        return True

    def _note(self, file: Path, body: bytes) -> None:
        """Keeps the digest of a chunk, so that its manifest need not read it."""
        self._digests[file.relative_to(self.folder).as_posix()] = hashlib.sha256(body).hexdigest()

    def _stored(self, file: Path) -> bytes | None:
        """The bytes of a chunk that was written, None if it is absent."""
        return file.read_bytes() if file.is_file() else None


def encoded(data: np.ndarray, plan: LayerPlan) -> bytes:
    """The bytes of one chunk (Z, Y, X) or (C, Z, Y, X); equal voxels give equal bytes."""
    from cloudvolume import chunks

    data_xyzc = data.T if data.ndim == 4 else data.T[..., None]
    body = bytes(chunks.encode(np.asfortranarray(data_xyzc), plan.encoding, ID_BLOCK))
    return gzip.compress(body, GZIP_LEVEL, mtime=0) if plan.gzip else body


def reduced(finer: Volume, block: VoxelBox, factor: Triple, labels: bool) -> np.ndarray:
    """The voxels ([C,] Z, Y, X) of `block` of a mip, from the finer mip by `factor` (z, y, x).

    Images: the mean of the finer voxels. Labels: their most frequent id, the largest one if several
    are equally frequent. Beyond the border of the finer mip its last voxel is repeated.
    """
    offset = triple([o * f for o, f in zip(block.offset, factor, strict=True)])
    window = VoxelBox(offset, triple([s * f for s, f in zip(block.shape, factor, strict=True)]))
    inside = window.intersect(finer.box)
    data = finer.read(inside)
    if window != inside:
        around = zip(window.offset, window.end, inside.offset, inside.end, strict=True)
        edges = [(b - a, c - d) for a, c, b, d in around]
        data = np.pad(data, [(0, 0)] * (data.ndim - 3) + edges, mode="edge")
    if factor == (1, 1, 1):
        return data
    steps: list[tuple[Any, ...]] = [
        (..., *(slice(i, None, f) for i, f in zip(start, factor, strict=True)))
        for start in product(*map(range, factor))
    ]
    parts = np.stack([data[step] for step in steps])
    return most_frequent(parts) if labels else rounded_mean(parts)


def most_frequent(parts: np.ndarray) -> np.ndarray:
    """The most frequent value (...) along the first axis of (N, ...); of several, the largest."""
    parts = np.sort(parts, axis=0)
    best, best_run = parts[0], np.ones(parts.shape[1:], np.int8)
    run = best_run
    for previous, value in zip(parts, parts[1:], strict=False):
        run = np.where(value == previous, run + 1, 1).astype(np.int8)
        best, best_run = np.where(run >= best_run, value, best), np.maximum(run, best_run)
    return best


def rounded_mean(parts: np.ndarray) -> np.ndarray:
    """The mean (...) along the first axis of (N, ...), rounded half up for integer dtypes."""
    mean = parts.mean(axis=0, dtype=np.float64)
    return (np.floor(mean + 0.5) if parts.dtype.kind in "ui" else mean).astype(parts.dtype)


def write_layer(
    folder: Path, data: np.ndarray, voxel_size_nm: Sequence[float], offset: Sequence[int]
) -> None:
    """Writes an array (Z, Y, X) as an image with one mip; `offset` of its first voxel, voxels."""
    size, box = checked_voxel_size(voxel_size_nm), VoxelBox(triple(offset), triple(data.shape))
    volume = Volume(data, size, box.to_nm(size).offset, str(folder))
    plan = plan_layer(volume, box, labels=False, compress=False)
    plan = replace(plan, mips=plan.mips[:1])
    work = folder.with_name(f"{folder.name}.work")
    LayerWriter(folder, work, plan).write(volume, 1)
    shutil.rmtree(work)


def plan_precomputed(layer: ExportedLayer) -> tuple[LayerPlan, Write]:
    """The mips of an exported layer, and a function that writes them."""
    plan = plan_layer(layer.volume, layer.box, labels=layer.labels, compress=layer.gzip)

    def write(folder: Path, work: Path) -> dict[str, str]:
        return LayerWriter(folder, work, plan).write(layer.volume, layer.threads)

    return plan, write
