"""Codecs of zarr that stay within the bytes of a chunk, and within bounded memory.

blosc trusts the sizes and offsets in a chunk's header: wrong ones end the program. gzip, zlib, bz2
and lzma unpack whatever there is, and zstd as much as its header says.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from typing import Any, ClassVar

import numcodecs
import numpy as np
import zarr
from numcodecs.compat import ensure_bytes, ndarray_copy
from numcodecs.registry import register_codec
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.registry import register_codec as register_v3_codec

from retrace.limits import UNPACKED_BYTES
from retrace.reading import Decompressor, unpacked, unzipped

BLOSC_HEADER = 16
"""Bytes before the offsets of the blocks."""
BLOSC_COPIED = 2
"""The flag of chunks that are stored without compression."""


def check_blosc(content: Any) -> None:
    """ValueError if the header of a blosc chunk does not fit its bytes."""
    if len(content) < BLOSC_HEADER:
        raise ValueError(f"a blosc chunk of {len(content)} bytes has no header")
    flags, size, block, stored = struct.unpack_from("<xxBxiii", content)
    if not 0 <= size <= UNPACKED_BYTES or not BLOSC_HEADER <= stored <= len(content):
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


def check_zstd(content: Any) -> None:
    """ValueError for a zstd frame whose header says that it unpacks to too much."""
    if len(content) < 14 or bytes(content[:4]) != b"\x28\xb5\x2f\xfd":
        return  # the decoder says what is wrong, or the frame is tiny
    descriptor = content[4]
    size_bytes = (int(descriptor) >> 5 & 1, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (not descriptor & 0x20) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(bytes(content[begin : begin + size_bytes]), "little")
    if size > UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {size} bytes")


class _Blosc(numcodecs.Blosc):
    codec_id: ClassVar[str] = "blosc"

    def decode(self, buf: Any, out: Any = None) -> Any:
        check_blosc(ensure_bytes(buf))
        return super().decode(buf, out)


class _Zstd(numcodecs.Zstd):
    codec_id: ClassVar[str] = "zstd"

    def decode(self, buf: Any, out: Any = None) -> Any:
        check_zstd(ensure_bytes(buf))
        return super().decode(buf, out)


class _GZip(numcodecs.GZip):
    codec_id: ClassVar[str] = "gzip"

    def decode(self, buf: Any, out: Any = None) -> Any:
        return ndarray_copy(unzipped(ensure_bytes(buf)), out)


class _Zlib(numcodecs.Zlib):
    codec_id: ClassVar[str] = "zlib"

    def decode(self, buf: Any, out: Any = None) -> Any:
        content = unpacked(zlib.decompressobj, ensure_bytes(buf), UNPACKED_BYTES)
        return ndarray_copy(content, out)


class _BZ2(numcodecs.BZ2):
    codec_id: ClassVar[str] = "bz2"

    def decode(self, buf: Any, out: Any = None) -> Any:
        content = unpacked(bz2.BZ2Decompressor, ensure_bytes(buf), UNPACKED_BYTES)
        return ndarray_copy(content, out)


class _LZMA(numcodecs.LZMA):
    codec_id: ClassVar[str] = "lzma"

    def decode(self, buf: Any, out: Any = None) -> Any:
        def begin() -> Decompressor:
            return lzma.LZMADecompressor(format=self.format, filters=self.filters)

        return ndarray_copy(unpacked(begin, ensure_bytes(buf), UNPACKED_BYTES), out)


class _BloscCodec(BloscCodec):
    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_blosc(chunk_bytes.to_bytes())
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _ZstdCodec(ZstdCodec):
    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_zstd(chunk_bytes.to_bytes())
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _GzipCodec(GzipCodec):
    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.buffer.from_bytes(unzipped(chunk_bytes.to_bytes()))


IN_FORMAT_2 = (_Blosc, _Zstd, _GZip, _Zlib, _BZ2, _LZMA)
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
