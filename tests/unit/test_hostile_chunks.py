"""Chunks whose headers lie: no crash, no more memory than the data can need, one clear line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compressed_segmentation
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from fuzz_volumes import (
    SHAPE,
    VALUES,
    read_layer,
    read_zarr,
    serving,
    write_layer,
    write_v2,
    write_v3,
)
from mutations import WEB_PAGE
from retrace.errors import DataError
from retrace.formats.checked_codecs import check_blosc, check_zstd
from retrace.formats.compressed_segmentation import check_encoding
from retrace.reading import unpacked, unzipped
from retrace.remote.objects import Block, unpacked_brotli
from retrace.storage.volumes import open_volume

MIB = 1 << 20


@pytest.mark.parametrize("place", [4, 8, 12, 16])
@pytest.mark.parametrize("version", [2, 3])
def test_sizes_and_offsets_of_blosc_chunks_are_compared_with_their_bytes(
    tmp_path: Path, version: int, place: int
) -> None:
    if version == 2:
        write_v2(tmp_path, numcodecs.Blosc("zstd"))
    else:
        write_v3(tmp_path, BloscCodec(cname="zstd"))
    chunk = min(
        p for p in (tmp_path / "a.zarr/raw").rglob("*") if p.name[0] in "0123" and p.is_file()
    )
    content = bytearray(chunk.read_bytes())
    struct.pack_into("<i", content, place, 1_767_250_464)
    chunk.write_bytes(content)

    with pytest.raises(DataError, match=r"a\.zarr.*blosc chunk"):
        read_zarr(tmp_path)


@pytest.mark.parametrize("codec", [numcodecs.Zlib(), numcodecs.Zstd(1, checksum=True)])
def test_a_damaged_chunk_is_named(tmp_path: Path, codec: Any) -> None:
    write_v2(tmp_path, codec)
    chunk = tmp_path / "a.zarr/raw/0.1.0"
    chunk.write_bytes(chunk.read_bytes()[:-2])

    with pytest.raises(DataError, match=r"a\.zarr/raw cannot be read \(chunk 0\.1\.0: .*restore"):
        read_zarr(tmp_path)


def test_sound_blosc_and_zstd_chunks_pass() -> None:
    for size in (0, 1, 100, 10**6):
        values = np.arange(size, dtype=np.uint8)
        for name in ("lz4", "zstd", "zlib", "blosclz"):
            for shuffle in (0, 1, 2):
                check_blosc(numcodecs.Blosc(name, shuffle=shuffle).encode(values))
        check_blosc(numcodecs.Blosc(clevel=0).encode(values))
        check_zstd(numcodecs.Zstd(1, checksum=True).encode(values))
    header = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (2**40).to_bytes(8, "little") + bytes(8)
    with pytest.raises(ValueError, match="unpacks to 1099511627776 bytes"):
        check_zstd(header)


BOMBS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]] = {
    "gzip": (gzip.compress, unzipped),
    "zlib": (zlib.compress, unzipped),
    "bz2": (bz2.compress, lambda content, limit: unpacked(bz2.BZ2Decompressor, content, limit)),
    "xz": (lzma.compress, lambda content, limit: unpacked(lzma.LZMADecompressor, content, limit)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_little_more_is_unpacked_than_allowed(name: str) -> None:
    compress, unpack = BOMBS[name]
    bomb = compress(bytes(64 * MIB))
    assert unpack(compress(bytes(MIB)), MIB) == bytes(MIB)
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        unpack(bomb, MIB)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 16 * MIB  # xz itself takes 8


def test_brotli_is_bounded_too() -> None:
    brotli: Any = pytest.importorskip("brotli")
    bomb = brotli.compress(bytes(64 * MIB))

    assert unpacked_brotli(brotli.compress(b"abc")) == b"abc"
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpacked_brotli(bomb, MIB)
    with pytest.raises(ValueError, match="end too early"):
        unpacked_brotli(brotli.compress(bytes(range(256)) * 99)[:-4])


def test_members_of_gzip_follow_each_other() -> None:
    assert unzipped(gzip.compress(b"ab") + gzip.compress(b"cd") + bytes(8)) == b"abcd"
    for damaged in (b"", gzip.compress(b"ab")[:-1], gzip.compress(b"ab") + b"x"):
        with pytest.raises(ValueError, match="empty|early|incorrect header"):
            unzipped(damaged)


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 16, 4), (19, 7, 5)])
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_sound_chunks_of_compressed_segmentation_pass(
    shape: tuple[int, int, int], dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    for ids in (1, 3, 200, 10**6):
        labels = np.asfortranarray(rng.integers(0, ids, shape).astype(dtype))[..., None]
        content = compressed_segmentation.compress(labels, (8, 8, 8), order="F")

        check_encoding(content, labels.shape, np.dtype(dtype), (8, 8, 8))


def test_compressed_segmentation_that_would_end_the_program_is_refused(tmp_path: Path) -> None:
    write_layer(tmp_path, "compressed_segmentation", compressed_segmentation_block_size=[8, 8, 4])
    chunk = min((tmp_path / "layer/4_4_40").iterdir())
    whole = np.frombuffer(chunk.read_bytes(), np.uint32)
    for word in (0, 1, 2):
        changed = whole.copy()
        changed[word] = 0x04FFFFFF
        chunk.write_bytes(changed.tobytes())
        with pytest.raises(DataError, match=r"4_4_40/.* cannot be read .*restore it"):
            read_layer(tmp_path)


def test_a_wrong_shape_does_not_list_all_chunks(tmp_path: Path) -> None:
    write_v2(tmp_path, None)
    file = tmp_path / "a.zarr/raw/.zarray"
    file.write_text(file.read_text().replace("16", str(2**31), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"at least \d+ of \d+ chunks are missing"):
        read_zarr(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 100 * MIB


@pytest.mark.parametrize("name", [".zarray", "0.0.0"])
def test_a_page_to_log_in_is_named(tmp_path: Path, name: str) -> None:
    write_v2(tmp_path, None)
    (tmp_path / "a.zarr/raw" / name).write_bytes(WEB_PAGE)

    with serving(tmp_path) as address, pytest.raises(DataError) as error:
        volume = open_volume(f"{address}/a.zarr", "raw")
        volume.read(volume.box)
    assert f"raw/{name} is a web page instead of data, perhaps a page to log in" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gzip_bomb_as_content_encoding_is_refused() -> None:
    block = Block(gzip.compress(bytes(64 * MIB)), 0, encoding="gzip")

    with pytest.raises(ValueError, match="more than"):
        block.content(MIB)


def test_many_empty_members_of_gzip_take_no_long() -> None:
    """Each copies what follows it, so that a large file would take hours."""
    members = gzip.compress(b"", mtime=0) * 50_000 + bytes(MIB)

    assert unzipped(members) == b""


def test_arrays_of_these_tests_are_sound(tmp_path: Path) -> None:
    write_v2(tmp_path, numcodecs.Blosc())

    assert zarr.open(tmp_path / "a.zarr/raw", mode="r").shape == SHAPE  # type: ignore[union-attr]
    np.testing.assert_array_equal(read_zarr(tmp_path)["values"], VALUES)
