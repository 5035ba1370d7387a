"""Neuroglancer's precomputed layers, streamed chunk by chunk. Converts x, y, z to z, y, x.

What decodes the chunks, and numpy, are imported only when a layer is opened, because planning reads
local `info` files where only the standard library is installed.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrace.errors import DataError, FetchError
from retrace.formats.contract import FormatPage
from retrace.formats.layer_info import layer_level
from retrace.formats.source import Region, Source
from retrace.geometry import NmBox, VoxelBox
from retrace.limits import INDEX_BYTES
from retrace.reading import (
    parse_json_object,
    read_json_object,
    reading_content,
    refuse_web_page,
    unzipped,
)
from retrace.remote.addresses import local_folder

if TYPE_CHECKING:
    from retrace.remote.block_reader import BlockReader


PAGE = FormatPage(
    title="Precomputed layers of neuroglancer",
    recognised_by="An address (s3://, gs://, https://, file://) that is no zarr; precomputed:// "
    "names the format. `mip` is the level.",
    axes="Stated by the format; x, y, z and the channel become (c), z, y, x.",
    voxel_size="Stated by `resolution` of the level, nm.",
    position="Stated by `voxel_offset`, in voxels of the level.",
    byte_order="Little-endian by the format.",
    channels="Stated by `num_channels`.",
    codecs="raw, compressed_segmentation, jpeg, png; sharded or not; gzip, brotli.",
    completeness="Each chunk that is read: a missing, empty or damaged one is refused, unless "
    "`missing_chunks: fill` lets missing ones read as 0. There is no check of all chunks, because "
    "many servers cannot list them.",
    refused="Layers of other kinds: graphene, meshes, skeletons. Other encodings (jxl, "
    "compresso, crackle, fpzip, kempressed, zfpc): their decoders make room for whatever a chunk "
    "states.",
)
KEPT_INDEX_BYTES = 1 << 27
"""Bytes of the indices of shards that are kept, those read last."""
ENTRY_BYTES = 256
"""Bytes that a kept index takes besides its numbers, about; one of an absent shard has none."""


def local_info(path: str) -> Path | None:
    """The `info` file of a layer on this machine, None for a remote layer."""
    folder = local_folder(path)
    return None if folder is None else folder / "info"


def check_local_layer(source: Source, roi_nm: Region | None) -> None:
    """DataError for a layer on this machine without that mip, or that does not contain the region.

    Remote layers are checked when they are opened.
    """
    info = local_info(source.path)
    if info is None or not info.parent.exists():
        return  # planning refuses a folder that is not there if a job needs it
    with reading_content(info, "correct `path` in the dataset's config"):
        level = layer_level(source.path, read_json_object(info), source.mip or 0)
        if roi_nm is not None:
            check_inside(source.path, level.box, level.voxel_size_nm, roi_nm.box)


def check_inside(name: str, box: VoxelBox, voxel_size_nm: Sequence[float], roi: NmBox) -> None:
    """DataError if the volume `name`, with this `box`, does not contain a region of interest."""
    whole = box.to_nm(voxel_size_nm)
    if not whole.contains(roi):
        raise DataError(
            f"{name}: roi_nm {list(roi.offset)}+{list(roi.shape)} leaves the volume "
            f"{list(whole.offset)}+{list(whole.shape)} nm (z, y, x); correct `roi_nm` in the "
            "dataset's config"
        )


class PrecomputedLayer:
    """One level of a layer as a read-only array (Z, Y, X), or (C, Z, Y, X) with several channels.

    `description` has its voxel size and position.
    """

    def __init__(self, reader: BlockReader, path: str, mip: int) -> None:
        """DataError if the layer cannot be read or has no such mip."""
        import numpy as np

        level = layer_level(path, read_info(reader, path), mip)
        self.path, self.reader, self.scale = path, reader, level.scale
        self._box, self.dtype, self.shape = level.box, np.dtype(level.dtype), level.shape
        self._lead = self.shape[:-3]
        self.chunks = level.chunks
        reader.expect_blocks(math.prod((level.channels, *self.chunks)) * self.dtype.itemsize)
        self.fill_missing = False
        """Whether missing chunks read as 0: some programs do not write black chunks."""
        self.description = level.describe()
        grid = [-(-s // c) for s, c in zip(self._box.shape, self.chunks, strict=True)]
        sharding = self.scale.get("sharding")
        with reading_content(f"{path}: `sharding` of `info`", "restore it, or correct `path`"):
            self._shards = ShardedChunks(reader, level.key, sharding, grid) if sharding else None

    def __getitem__(self, region: tuple[slice, ...]) -> Any:
        """Voxels of slices without steps ([c,] z, y, x), counted from the layer's first voxel."""
        import numpy as np

        from retrace.formats.n5 import paste

        *channels, z, y, x = region
        spans = [s.indices(n)[:2] for s, n in zip((z, y, x), self._box.shape, strict=True)]
        shape = [max(0, end - begin) for begin, end in spans]
        result = np.zeros((*self._lead, *shape), self.dtype)
        grid = [range(b // c, -(-e // c)) for (b, e), c in zip(spans, self.chunks, strict=True)]
        indices = list(product(*grid)) if result.size else []
        begin = np.array([b for b, _ in spans])
        for index, chunk in zip(indices, self.reader.pool.map(self._chunk, indices), strict=True):
            paste(result, begin, chunk, np.multiply(index, self.chunks))
        return result[tuple(channels)]

    def _chunk(self, index: tuple[int, ...]) -> Any:
        """One chunk (Z, Y, X) or (C, Z, Y, X), cut at the end of the layer."""
        import numpy as np

        from retrace.formats.layer_chunks import decoded

        begin = [i * c for i, c in zip(index, self.chunks, strict=True)]
        end = [min(b + c, s) for b, c, s in zip(begin, self.chunks, self._box.shape, strict=True)]
        world = [(b + o, e + o) for b, e, o in zip(begin, end, self._box.offset, strict=True)]
        name = "_".join(f"{low}-{high}" for low, high in reversed(world))
        key = f"{self.scale['key']}/{name}"
        data = self._shards.chunk(index) if self._shards else self.reader.block(key)
        extent = [e - b for b, e in zip(begin, end, strict=True)]
        if data is None and self.fill_missing:
            return np.zeros((*self._lead, *extent), self.dtype)
        if data is None:
            raise DataError(
                f"{self.path}: chunk {key} is missing; restore it. If the program that wrote the "
                "layer leaves out black chunks, set `missing_chunks: fill` for this source in the "
                "dataset's config"
            )
        if not data:  # some decoders read nothing as zeros
            raise DataError(f"{self.path}: chunk {key} is an empty file; restore it")
        refuse_web_page(data, f"{self.path}: chunk {key}", "restore it")
        shape = (*extent[::-1], *(self._lead or (1,)))
        block = self.scale.get("compressed_segmentation_block_size")
        with reading_content(f"{self.path}: chunk {key}", "restore it"):
            chunk = decoded(data, self.scale["encoding"], shape, self.dtype, block)
        return chunk.T if self._lead else chunk[..., 0].T


def read_info(reader: BlockReader, path: str) -> Mapping[str, Any]:
    """The metadata of a layer; DataError if there is none."""
    try:
        content = reader.document("info")
        if content is None:
            raise DataError("there is no file `info`")
        info = parse_json_object(content, "info")
    except (DataError, FetchError) as error:
        remedy = "check the address and the internet access"
        if local_folder(path) is not None:
            remedy = "correct the address, or leave out file:// if it is a zarr, n5, h5 or tif"
        raise DataError(
            f"{path} cannot be opened as a precomputed layer ({error}); {remedy}"
        ) from error
    return info


class ShardedChunks:
    """Chunks of a sharded scale: many in one object, located by two levels of indices.

    Format: github.com/google/neuroglancer, src/datasource/precomputed/sharded.md. cloud-volume
    computes the shard and the minishard of a chunk.
    """

    def __init__(
        self, reader: BlockReader, key: str, sharding: Mapping[str, Any], grid: Sequence[int]
    ) -> None:
        """`grid`: number of chunks (z, y, x)."""
        from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

        self.reader, self.key, self.grid = reader, key, grid[::-1]
        self._spec = ShardingSpecification.from_dict(dict(sharding))
        self._indices: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._index_bytes = 0
        self._lock = threading.Lock()

    def chunk(self, index: Sequence[int]) -> bytes | None:
        """The encoded bytes of the chunk at `index` (z, y, x), None if it is missing."""
        import numpy as np
        from cloudvolume.datasource.precomputed.common import compressed_morton_code

        code = compressed_morton_code(np.array([index[::-1]], np.uint32), self.grid)
        label = int(np.ravel(code)[0])
        location = self._spec.compute_shard_location(label)
        shard = str(location.shard_number)
        labels, begins, sizes = self._minishard(shard, int(location.minishard_number))
        found = np.flatnonzero(labels == label)
        if not found.size:
            return None
        name, at = self._name(shard), found[-1]
        data = self.reader.block(name, (int(begins[at]), int(sizes[at])))
        with reading_content(f"{self.reader.folder.url}/{name}", "restore it"):
            most = self.reader.most_unpacked
            return None if data is None else _unzipped(data, self._spec.data_encoding, most)

    def _name(self, shard: str) -> str:
        return f"{self.key}/{shard}.shard"

    def _minishard(self, shard: str, number: int) -> Any:
        """Number, first byte and bytes of each chunk in one minishard, (3, chunks) uint64."""
        place = (shard, number)
        with self._lock:
            if place in self._indices:
                self._indices.move_to_end(place)
                return self._indices[place]
        index = self._read_minishard(shard, number)
        with self._lock:
            if place not in self._indices:
                self._indices[place] = index
                self._index_bytes += index.nbytes + ENTRY_BYTES
            while self._index_bytes > KEPT_INDEX_BYTES:
                _, oldest = self._indices.popitem(last=False)
                self._index_bytes -= oldest.nbytes + ENTRY_BYTES
        return index

    def _read_minishard(self, shard: str, number: int) -> Any:
        """`_minishard` from the shard; no chunks without one."""
        import numpy as np

        entry = self.reader.block(self._name(shard), (16 * number, 16))
        if entry is None:
            return np.zeros((3, 0), np.uint64)
        with reading_content(f"{self.reader.folder.url}/{self._name(shard)}", "restore it"):
            return self._locations(shard, entry)

    def _locations(self, shard: str, entry: bytes) -> Any:
        """The places of the chunks of one minishard, from its entry in the shard's index."""
        import numpy as np

        begin, end = (int(n) for n in np.frombuffer(entry, "<u8"))
        index_bytes = int(self._spec.index_length())
        if begin == end:
            return np.zeros((3, 0), np.uint64)
        if not 0 < end - begin <= INDEX_BYTES:
            raise ValueError(f"an index of chunks has {end - begin} bytes; allowed: {INDEX_BYTES}")
        packed = self.reader.block(self._name(shard), (index_bytes + begin, end - begin))
        index = _unzipped(packed or b"", self._spec.minishard_index_encoding, INDEX_BYTES)
        labels, gaps, sizes = np.frombuffer(index, "<u8").reshape(3, -1)
        ends = np.cumsum(gaps + sizes)  # labels and gaps are differences
        return np.stack([np.cumsum(labels), index_bytes + ends - sizes, sizes])


def _unzipped(data: bytes, encoding: str, most: int) -> bytes:
    return unzipped(data, most) if encoding == "gzip" else data
