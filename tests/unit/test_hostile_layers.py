"""Chunks of layers are compared with `info` before they are decoded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cloudvolume.datasource.precomputed.sharding  # noqa: F401  # its import takes memory
import numpy as np
import pytest

from hostile_chunks import (
    BEGIN,
    OTHER_ENCODINGS,
    PIXELS,
    REFUSED,
    SHAPE,
    TEXTS,
    jpeg,
    png,
    read_layer,
    shared_words,
    write_layer,
)
from retrace.errors import DataError
from retrace.formats.compressed_segmentation import check_encoding
from retrace.formats.precomputed import check_local_layer
from retrace.formats.source import Source

MIB = 1 << 20


@pytest.mark.parametrize("name", REFUSED)
def test_a_chunk_that_asks_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path)
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as error:
        read_layer(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "\n" not in str(error.value) and "layer" in str(error.value)
    assert most < 64 * MIB


@pytest.mark.parametrize("encoding", OTHER_ENCODINGS)
def test_planning_refuses_other_encodings(tmp_path: Path, encoding: str) -> None:
    write_layer(tmp_path, encoding, b"")

    with pytest.raises(DataError, match="allowed: raw, compressed_segmentation, jpeg, png. Conv"):
        check_local_layer(Source(path=f"file://{tmp_path}/layer"), None)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1)])
def test_png_is_read_exactly(tmp_path: Path, dtype: str, channels: int) -> None:
    values = np.stack([PIXELS * (n + 1) for n in range(channels)], -1).astype(dtype)
    content = png(values[..., 0] if channels == 1 else values)
    write_layer(tmp_path, "png", content, dtype, channels)
    expected = values.reshape(*SHAPE, channels)

    found = read_layer(tmp_path)

    for channel, plane in enumerate(found if channels > 1 else [found]):
        np.testing.assert_array_equal(plane, expected[..., channel])


def test_texts_of_a_png_are_not_unpacked(tmp_path: Path) -> None:
    content = png()[:BEGIN] + TEXTS + png()[BEGIN:]
    write_layer(tmp_path, "png", content)
    tracemalloc.start()
    found = read_layer(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    np.testing.assert_array_equal(found, PIXELS.astype(np.uint8).reshape(SHAPE))
    assert most < 32 * MIB


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_read_in_its_place(tmp_path: Path, channels: int) -> None:
    z, y, x = np.indices(SHAPE)
    values = np.stack([4 * x, 3 * y, 10 * z][:channels], -1).astype(np.uint8)
    rows = values.reshape(SHAPE[0] * SHAPE[1], SHAPE[2], channels)
    options = {"quality": 95, "progressive": True, "subsampling": 0}
    content = jpeg(rows[..., 0] if channels == 1 else rows, **options)
    write_layer(tmp_path, "jpeg", content, "uint8", channels)

    found = read_layer(tmp_path)

    for channel, plane in enumerate(found if channels > 1 else [found]):
        difference = plane.astype(int) - values[..., channel]
        assert np.abs(difference).mean() < 4


def test_blocks_that_share_their_words_take_no_memory() -> None:
    shape = (128, 256, 256)
    chunk = shared_words(shape)
    tracemalloc.start()
    check_encoding(chunk, (*shape[::-1], 1), np.dtype(np.uint32), (64, 64, 64))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 48 * MIB
