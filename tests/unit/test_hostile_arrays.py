"""Arrays of zarr and pages of tif that unpack to more than their metadata allow."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec

from fuzz_volumes import VALUES, read_zarr, write_v2, write_v3
from hostile_chunks import tif_of_shared_bytes, zstd_of_zeros
from retrace.errors import DataError
from retrace.formats.checked_codecs import check_zstd
from retrace.storage.volumes import open_volume

MIB = 1 << 20
LARGE = 64 * MIB
ZEROS = bytes(LARGE)


def compressed(codec: Any) -> bytes:
    return bytes(codec.encode(np.zeros(LARGE, np.uint8)))


BOMBS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "gzip": (numcodecs.GZip(), lambda: gzip.compress(ZEROS)),
    "zlib": (numcodecs.Zlib(), lambda: zlib.compress(ZEROS)),
    "bz2": (numcodecs.BZ2(), lambda: bz2.compress(ZEROS)),
    "lzma": (numcodecs.LZMA(), lambda: lzma.compress(ZEROS)),
    "lz4": (numcodecs.LZ4(), lambda: compressed(numcodecs.LZ4())),
    "blosc": (numcodecs.Blosc("zstd"), lambda: compressed(numcodecs.Blosc("zstd"))),
    "zstd": (numcodecs.Zstd(), lambda: zstd_of_zeros(LARGE, stated=True)),
    "zstd without a size": (numcodecs.Zstd(), lambda: zstd_of_zeros(LARGE)),
    "two frames of zstd": (numcodecs.Zstd(), lambda: zstd_of_zeros(9) + zstd_of_zeros(LARGE)),
}


def refused(folder: Path, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as error:
        read_zarr(folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "\n" not in str(error.value)
    assert most < LARGE / 2


IN_BOTH = ("gzip", "zstd")
"""Codecs of both formats that are no copies of each other."""


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (n, v)
        for n, (codec, _) in BOMBS.items()
        for v in (2, 3)
        if v == 2 or codec.codec_id in IN_BOTH
    ],
)
def test_a_chunk_unpacks_to_what_the_array_allows(tmp_path: Path, name: str, version: int) -> None:
    codec, bomb = BOMBS[name]
    if version == 2:
        write_v2(tmp_path, codec)
        chunk = tmp_path / "a.zarr/raw/0.0.0"
    else:
        write_v3(tmp_path, {"name": codec.codec_id, "configuration": {"level": 1}})
        chunk = tmp_path / "a.zarr/raw/c/0/0/0"
    read_zarr(tmp_path)
    chunk.write_bytes(bomb())

    refused(tmp_path, r"a\.zarr.*(unpacks to|unpacked 67108864)")


def test_frames_of_zstd_are_counted() -> None:
    for size in (0, 1, 2**17, 2**17 + 1, 10**6):
        for stated in (True, False):
            check_zstd(zstd_of_zeros(size, stated=stated), size + 64)
    check_zstd(bytes(numcodecs.Zstd().encode(VALUES)), VALUES.nbytes)
    with pytest.raises(ValueError, match="unpacks to 1000000 bytes"):
        check_zstd(zstd_of_zeros(10**6, stated=True), 10**6 - 1)
    with pytest.raises(ValueError, match="unpacks to"):
        check_zstd(zstd_of_zeros(0) * 10**5, 10**6)


def state_codec(folder: Path, **codecs: Any) -> None:
    file = folder / "a.zarr/raw/.zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **codecs}))


class Called:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("called"),))


def test_codecs_that_are_not_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    write_v2(tmp_path, None)
    (tmp_path / "a.zarr/raw/0.0.0").write_bytes(pickle.dumps(Called()))
    state_codec(tmp_path, compressor={"id": "pickle"})
    refused(tmp_path, "pickle")
    assert not Path("called").exists()

    state_codec(tmp_path, compressor=None, filters=[{"id": "packbits"}] * 6)
    refused(tmp_path, "stored with codec 'packbits'")
    delta = {"id": "delta", "dtype": "<u2"}
    state_codec(tmp_path, compressor=None, filters=[delta] * 9)
    refused(tmp_path, "stored with 9 codecs")


def test_shards_of_too_many_chunks(tmp_path: Path) -> None:
    inner = ShardingCodec(chunk_shape=(1, 1, 1), codecs=[BytesCodec(), GzipCodec()])
    zarr.create_array(
        tmp_path / "a.zarr/raw",
        shape=(128, 128, 128),
        chunks=(128, 128, 128),
        dtype="u2",
        serializer=inner,
        compressors=None,
    )

    refused(tmp_path, "shards of 2097152 chunks; up to 1048576")


def test_numbers_of_many_digits(tmp_path: Path) -> None:
    write_v2(tmp_path, None)
    state_codec(tmp_path, chunks=[10**4000] * 3)

    refused(tmp_path, r"chunks of \[more than 10\^18, more")


@pytest.mark.parametrize("key", ["resolution", "offset"])
def test_lengths_of_many_digits(tmp_path: Path, key: str) -> None:
    write_v3(tmp_path, None)
    file = tmp_path / "a.zarr/raw/zarr.json"
    document = json.loads(file.read_text())
    document["attributes"][key] = [10**4000] * 3
    file.write_text(json.dumps(document))

    refused(tmp_path, "a number of more than 1e.300 is no length")


def test_pages_that_share_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tif_of_shared_bytes())

    with pytest.raises(DataError, match="its pages share their bytes"):
        open_volume(tmp_path / "a.tif", "", voxel_size_nm=(1, 1, 1))
    assert struct.unpack_from("<H", tif_of_shared_bytes(), 8) == (4000,)
