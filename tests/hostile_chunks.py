"""Chunks of precomputed layers that ask for more memory or time than `info` allows."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrace.storage.volumes import open_volume

SHAPE = (16, 64, 64)
"""Voxels (z, y, x) of the only chunk."""
PIXELS = np.arange(np.prod(SHAPE), dtype=np.uint32).reshape(SHAPE[0] * SHAPE[1], SHAPE[2])
OTHER_ENCODINGS = ("jxl", "compresso", "crackle", "fpzip", "kempressed", "zfpc", "npz", "RAW")
HUGE = 2**14


def write_layer(
    folder: Path,
    encoding: str,
    chunk: bytes,
    dtype: str = "uint8",
    channels: int = 1,
    *,
    shape: tuple[int, int, int] = SHAPE,
    **scale: Any,
) -> None:
    """A layer of one chunk (z, y, x) of any bytes."""
    z, y, x = shape
    entry = {
        **{"key": "4_4_40", "size": [x, y, z], "chunk_sizes": [[x, y, z]], "encoding": encoding},
        **{"resolution": [4, 4, 40], "voxel_offset": [0, 0, 0], **scale},
    }
    info = {"type": "image", "data_type": dtype, "num_channels": channels, "scales": [entry]}
    (folder / "layer/4_4_40").mkdir(parents=True)
    (folder / "layer/info").write_text(json.dumps(info))
    (folder / f"layer/4_4_40/0-{x}_0-{y}_0-{z}").write_bytes(chunk)


def read_layer(folder: Path) -> Any:
    """The values of the layer."""
    volume = open_volume(f"file://{folder}/layer")
    return volume.read(volume.box)


# ---------------------------------------------------------------- images


def jpeg(pixels: np.ndarray = PIXELS, **options: Any) -> bytes:
    """A jpeg of the pixels (rows, columns[, 3])."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "jpeg", **options)
    return stream.getvalue()


def wide_jpeg() -> bytes:
    content = bytearray(jpeg())
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, 65_000, 65_000)
    return bytes(content)


def jpeg_of_many_scans() -> bytes:
    content = jpeg(progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * 1000 + b"\xff\xd9"


def png_part(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(pixels: np.ndarray | None = None) -> bytes:
    """A png of the pixels (rows, columns[, channels])."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8) if pixels is None else pixels).save(stream, "png")
    return stream.getvalue()


def png_header(width: int, height: int, bits: int = 8, kind: int = 0) -> bytes:
    return png_part(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))


BEGIN = 8 + len(png_header(1, 1))
"""Bytes of a png before its second part."""
SIZE = (SHAPE[2], SHAPE[0] * SHAPE[1])
TEXTS = png_part(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))) * 20
"""64 MiB of text, twenty times."""


# ---------------------------------------------------------------- ids and shards


def shared_words(shape: tuple[int, int, int]) -> bytes:
    """A chunk of compressed_segmentation whose blocks of 64^3 voxels have the same values."""
    z, y, x = shape
    blocks = z * y * x // 64**3
    begin = 2 * blocks
    header = [begin | 32 << 24, begin]  # table and values in the same place
    return np.array([1, *header * blocks, *[0] * 64**3], "<u4").tobytes()


def beyond_its_end() -> bytes:
    """A chunk of compressed_segmentation whose values are not in it."""
    return np.array([1, 2 | 32 << 24, 2**20, 0], "<u4").tobytes()


def write_shard(folder: Path, index: bytes, stated: int | None = None) -> None:
    """A sharded layer with one shard, whose index is `index`; `stated`: the bytes that it says."""
    sharding = {
        **{"@type": "neuroglancer_uint64_sharded_v1", "hash": "identity"},
        **{"minishard_bits": 0, "shard_bits": 0, "preshift_bits": 0},
        **{"minishard_index_encoding": "gzip", "data_encoding": "raw"},
    }
    write_layer(folder, "raw", b"", sharding=sharding)
    entry = struct.pack("<QQ", 0, len(index) if stated is None else stated)
    (folder / "layer/4_4_40/0.shard").write_bytes(entry + index)


def _written(encoding: str, chunk: Callable[[], bytes], **options: Any) -> Callable[[Path], None]:
    return lambda folder: write_layer(folder, encoding, chunk(), **options)


IDS = {"dtype": "uint64", "compressed_segmentation_block_size": [64, 64, 64]}
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        f"encoding {name}": (_written(name, lambda: b"\xff\x0a"), f"'{name}'; allowed: raw, ")
        for name in OTHER_ENCODINGS
    },
    "jpeg of ids": (_written("jpeg", jpeg, dtype="uint64"), "allowed: uint8 with 1 or 3 channels"),
    "jpeg: 65000 x 65000": (_written("jpeg", wide_jpeg), "header says 65000 x 65000 pixels"),
    "jpeg: scans": (_written("jpeg", jpeg_of_many_scans), r"it has \d+ scans; up to 100"),
    "png: 60000 x 60000": (
        _written("png", lambda: png()[:8] + png_header(60_000, 60_000) + png()[BEGIN:]),
        "60000 x 60000",
    ),
    "png: two headers": (
        _written("png", lambda: png()[:BEGIN] + png_header(HUGE, HUGE) + png()[BEGIN:]),
        "it is not a png",
    ),
    "png: 16 bits": (
        _written("png", lambda: png()[:8] + png_header(*SIZE, 16) + png()[BEGIN:]),
        "kind 0 with 16 bits",
    ),
    "png: four channels": (
        _written("png", lambda: png()[:8] + png_header(*SIZE, 8, 6) + png()[BEGIN:]),
        "kind 6 with 8 bits",
    ),
    "shard: index of 64 MiB": (
        lambda folder: write_shard(folder, gzip.compress(bytes(2**26))),
        "unpacks to more than 16777216 bytes",
    ),
    "shard: index of 2^40 bytes": (
        lambda folder: write_shard(folder, b"", 2**40),
        "an index of chunks has 1099511627776 bytes",
    ),
    "ids: values beyond the end": (
        _written("compressed_segmentation", beyond_its_end, **IDS),
        "the values of a block are beyond its end",
    ),
}
"""Layers, and what their error says."""


# ---------------------------------------------------------------- compressed to almost nothing


def zstd_of_zeros(size: int, *, stated: bool = False) -> bytes:
    """A zstd frame of zeros whose blocks repeat one byte; without `stated`, it says no size."""
    block = 1 << 17
    sizes = [block] * (size // block) + [size % block]
    header = bytes([0xA0]) + struct.pack("<I", size) if stated else bytes([0x00, 0x58])
    parts = [
        struct.pack("<I", n << 3 | 1 << 1 | (number + 1 == len(sizes)))[:3] + b"\0"
        for number, n in enumerate(sizes)
    ]
    return b"\x28\xb5\x2f\xfd" + header + b"".join(parts)


def tif_of_shared_bytes(pages: int = 2000, tags: int = 4000) -> bytes:
    """A tif whose pages have almost all of their bytes in common."""
    begin, size = 8, 2 + 12 * tags
    content = bytearray(begin + size + 4 * pages + 4)
    content[:8] = b"II*\0" + struct.pack("<I", begin)
    for page in range(pages):
        offset = begin + 4 * page
        struct.pack_into("<H", content, offset, tags)
        following = offset + 4 if page + 1 < pages else 0
        struct.pack_into("<I", content, offset + size, following)
    return bytes(content)
