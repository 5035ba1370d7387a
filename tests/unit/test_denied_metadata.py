"""A server that denies objects that do not exist, as S3 does where a bucket must not be listed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import file_server
from retrace.errors import FetchError
from retrace.storage.volumes import open_volume

DATA = np.arange(6 * 7 * 8, dtype=np.uint8).reshape(6, 7, 8)


class Denying(SimpleHTTPRequestHandler):
    def send_error(self, code: int, *args: Any, **more: Any) -> None:
        super().send_error(403 if code == 404 else code, *args, **more)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with file_server.answering(partial(Denying, directory=str(tmp_path))) as address:
        yield address


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_are_denied_count_as_absent(
    tmp_path: Path, address: str, zarr_format: int
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    array = group.create_array("in/raw", shape=DATA.shape, dtype="u1", chunks=(3, 4, 5))
    array[...] = DATA
    array.attrs.update({"resolution": [8, 4.6, 4.6]})

    volume = open_volume(f"{address}/a.zarr", "in/raw")
    np.testing.assert_array_equal(volume.read(volume.box), DATA)
    chunk = next(p for p in tmp_path.rglob("*") if p.is_file() and p.name.endswith(("0", "1")))
    chunk.unlink()
    volume = open_volume(f"{address}/a.zarr", "in/raw")
    with pytest.raises(FetchError, match="403"):
        volume.read(volume.box)


def test_a_denied_array_is_refused_as_such(tmp_path: Path, address: str) -> None:
    with pytest.raises(FetchError, match="is refused with status 403"):
        open_volume(f"{address}/private.zarr", "raw", voxel_size_nm=(8, 8, 8))
