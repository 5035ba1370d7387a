"""Codecs of zarr that stay within the bytes of a chunk, and within bounded memory.

blosc trusts the sizes and offsets in a chunk's header: wrong ones end the program. gzip, zlib, bz2
and lzma unpack whatever there is, and zstd as much as its header says.
"""

from __future__ import annotations

import bz2
import lzma
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numcodecs
import numpy as np
import zarr
from numcodecs.compat import ensure_bytes, ndarray_copy
from numcodecs.registry import register_codec
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.registry import register_codec as register_v3_codec

from retrace.errors import DataError
from retrace.limits import SHARD_CHUNKS, UNPACKED_BYTES, counted
from retrace.reading import Decompressor, unpacked, unzipped

BLOSC_HEADER = 16
"""Bytes before the offsets of the blocks."""
BLOSC_COPIED = 2
"""The flag of chunks that are stored without compression."""
ZSTD = b"\x28\xb5\x2f\xfd"
ZSTD_REPEATED, ZSTD_PACKED = 1, 2
"""Kinds of blocks: one byte that is repeated, and compressed ones."""
ZSTD_BLOCK, ZSTD_LEAST = 1 << 17, 64
"""Bytes that a compressed block unpacks to at most, and that any block counts as at least."""
LARGEST_VALUE = 8
"""Bytes of the largest value that a filter makes of one byte."""
SLACK_BYTES = 1 << 20
"""Bytes that a small chunk may have beyond."""
MOST_CODECS = 8
FILTERS = ("delta", "fixedscaleoffset", "astype", "quantize", "bitround", "shuffle")
CHECKSUMS = ("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3")
CODECS_OF_2 = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", *FILTERS, *CHECKSUMS)
CODECS_OF_3 = ("bytes", "transpose", "sharding_indexed", "blosc", "zstd", "gzip", "crc32c")
"""The codecs that are read: others make room for what a chunk states, or run code in it."""


def check_blosc(content: Any, most: int = UNPACKED_BYTES) -> None:
    """ValueError if the header of a blosc chunk does not fit its bytes, or states too many."""
    if len(content) < BLOSC_HEADER:
        raise ValueError(f"a blosc chunk of {len(content)} bytes has no header")
    flags, size, block, stored = struct.unpack_from("<xxBxiii", content)
    if not 0 <= size <= most or not BLOSC_HEADER <= stored <= len(content):
        raise ValueError(f"a blosc chunk of {len(content)} bytes says {stored}, unpacked {size}")
    if not size or flags & BLOSC_COPIED:
        return
    if not 0 < block <= size:
        raise ValueError(f"the blocks of a blosc chunk of {size} bytes have {block}")
    count = -(-size // block)
    first = BLOSC_HEADER + 4 * count
    if first > stored:
        raise ValueError("the offsets of a blosc chunk are incomplete")
    begins = np.frombuffer(content, "<i4", count, BLOSC_HEADER)
    if begins.min() < first or begins.max() >= stored:
        raise ValueError("a block of a blosc chunk is beyond its end")


def check_lz4(content: Any, most: int = UNPACKED_BYTES) -> None:
    """ValueError if the header of an lz4 chunk of numcodecs states too many bytes."""
    size = int.from_bytes(bytes(content[:4]), "little", signed=True)
    if not 0 <= size <= most:
        raise ValueError(f"it unpacks to {size} bytes; up to {most} are read")


def check_zstd(content: Any, most: int = UNPACKED_BYTES) -> None:
    """ValueError for zstd frames that unpack to more than `most` bytes.

    Format: RFC 8878. The decoder makes room for the size that the first frame states; without one,
    it unpacks all blocks, which may be 128 KiB of four bytes.
    """
    data = bytes(content)
    if len(data) < 6 or not data.startswith(ZSTD):
        return  # the decoder says what is wrong
    size, at = _zstd_frame(data, 0)
    if size is None:
        size = 0
        while size <= most and at + 3 <= len(data):
            unpacks, at = _zstd_block(data, at)
            size += unpacks
    if size > most:
        raise ValueError(f"it unpacks to {size} bytes or more; up to {most} are read")


def _zstd_frame(data: bytes, at: int) -> tuple[int | None, int]:
    """The size that a frame at byte `at` states, None without one, and where its blocks begin."""
    descriptor = data[at + 4]
    is_single = descriptor >> 5 & 1
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    begin = at + 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[begin : begin + size_bytes], "little")
    return (size + 256 * (size_bytes == 2) if size_bytes else None), begin + size_bytes


def _zstd_block(data: bytes, at: int) -> tuple[int, int]:
    """The most bytes that the block at byte `at` unpacks to, and where the next one begins.

    Behind the last block of a frame, that is in the next frame. Empty blocks count, too.
    """
    header = int.from_bytes(data[at : at + 3], "little")
    is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
    following = at + 3 + (1 if kind == ZSTD_REPEATED else size)
    if is_last:
        following = data.find(ZSTD, following)
        following = len(data) if following < 0 else _zstd_frame(data, following)[1]
    return max(ZSTD_BLOCK if kind == ZSTD_PACKED else size, ZSTD_LEAST), following


class _Limited:
    """A codec of format 2; `limit_codecs` says how much a chunk may unpack to."""

    _most: int = UNPACKED_BYTES


class _Blosc(_Limited, numcodecs.Blosc):
    codec_id: ClassVar[str] = "blosc"

    def decode(self, buf: Any, out: Any = None) -> Any:
        check_blosc(ensure_bytes(buf), self._most)
        return super().decode(buf, out)


class _Zstd(_Limited, numcodecs.Zstd):
    codec_id: ClassVar[str] = "zstd"

    def decode(self, buf: Any, out: Any = None) -> Any:
        check_zstd(ensure_bytes(buf), self._most)
        return super().decode(buf, out)


class _LZ4(_Limited, numcodecs.LZ4):
    codec_id: ClassVar[str] = "lz4"

    def decode(self, buf: Any, out: Any = None) -> Any:
        check_lz4(ensure_bytes(buf), self._most)
        return super().decode(buf, out)


class _GZip(_Limited, numcodecs.GZip):
    codec_id: ClassVar[str] = "gzip"

    def decode(self, buf: Any, out: Any = None) -> Any:
        return ndarray_copy(unzipped(ensure_bytes(buf), self._most), out)


class _Zlib(_Limited, numcodecs.Zlib):
    codec_id: ClassVar[str] = "zlib"

    def decode(self, buf: Any, out: Any = None) -> Any:
        content = unpacked(zlib.decompressobj, ensure_bytes(buf), self._most)
        return ndarray_copy(content, out)


class _BZ2(_Limited, numcodecs.BZ2):
    codec_id: ClassVar[str] = "bz2"

    def decode(self, buf: Any, out: Any = None) -> Any:
        content = unpacked(bz2.BZ2Decompressor, ensure_bytes(buf), self._most)
        return ndarray_copy(content, out)


class _LZMA(_Limited, numcodecs.LZMA):
    codec_id: ClassVar[str] = "lzma"

    def decode(self, buf: Any, out: Any = None) -> Any:
        def begin() -> Decompressor:
            return lzma.LZMADecompressor(format=self.format, filters=self.filters)

        return ndarray_copy(unpacked(begin, ensure_bytes(buf), self._most), out)


class _BloscCodec(BloscCodec):
    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_blosc(chunk_bytes.to_bytes(), _most_of(chunk_spec))
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _ZstdCodec(ZstdCodec):
    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_zstd(chunk_bytes.to_bytes(), _most_of(chunk_spec))
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _GzipCodec(GzipCodec):
    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        content = unzipped(chunk_bytes.to_bytes(), _most_of(chunk_spec))
        return chunk_spec.prototype.buffer.from_bytes(content)


def most_unpacked(chunk: Sequence[int], itemsize: int) -> int:
    """Bytes that a chunk of this shape may unpack to; filters may change the size of a value."""
    return min(LARGEST_VALUE * math.prod(chunk) * max(itemsize, 1) + SLACK_BYTES, UNPACKED_BYTES)


def _most_of(chunk_spec: Any) -> int:
    """The same for what zarr says about a chunk of format 3."""
    return most_unpacked(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize)


def limit_codecs(name: str, array: zarr.Array) -> None:
    """Limits what the chunks of an array may unpack to; DataError for codecs that are not read."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 3:
        _check_codecs(name, metadata.codecs)
        return
    codecs = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
    _check_names(name, [codec.codec_id for codec in codecs], CODECS_OF_2)
    for codec in codecs:
        if isinstance(codec, _Limited):
            codec._most = most_unpacked(array.chunks, array.dtype.itemsize)


def _check_codecs(name: str, codecs: Sequence[Any]) -> None:
    """DataError for codecs of format 3 that are not read, also of those inside shards."""
    _check_names(name, [codec.to_dict()["name"] for codec in codecs], CODECS_OF_3)
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            _check_codecs(name, codec.codecs)
            _check_codecs(name, codec.index_codecs)


def check_shards(name: str, shard: Sequence[int], chunk: Sequence[int]) -> None:
    """DataError for shards of more chunks than are read; their index is read as a whole."""
    count = math.prod(-(-s // c) for s, c in zip(shard, chunk, strict=True))
    if count > SHARD_CHUNKS:
        raise DataError(
            f"{name} has shards of {counted(count)} chunks; up to {SHARD_CHUNKS} are read. Write "
            "it with smaller shards, or larger chunks"
        )


def _check_names(name: str, codecs: Sequence[str], allowed: Sequence[str]) -> None:
    wrong = [codec for codec in codecs if codec not in allowed]
    if wrong or len(codecs) > MOST_CODECS:
        what = f"codec {wrong[0]!r}" if wrong else f"{len(codecs)} codecs"
        raise DataError(
            f"{name} is stored with {what}; allowed: up to {MOST_CODECS} of {', '.join(allowed)}. "
            "Convert it, for example to blosc"
        )


IN_FORMAT_2 = (_Blosc, _Zstd, _LZ4, _GZip, _Zlib, _BZ2, _LZMA)
IN_FORMAT_3: dict[str, type[Codec]] = {
    "blosc": _BloscCodec,
    "zstd": _ZstdCodec,
    "gzip": _GzipCodec,
}


def use_checked_codecs() -> None:
    """Makes zarr use these codecs, under their usual names, in this process."""
    for codec in IN_FORMAT_2:
        register_codec(codec)
    for name, codec_of_3 in IN_FORMAT_3.items():
        register_v3_codec(name, codec_of_3)
        zarr.config.set({f"codecs.{name}": f"{codec_of_3.__module__}.{codec_of_3.__qualname__}"})
