"""Precomputed layers and n5 datasets: places, axis order, parts, and what is refused."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrace.addresses import is_address, is_zarr, local_folder
from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.precomputed import check_local_layer, write_layer
from retrace.volumes import open_volume

DATA = np.random.default_rng(3).integers(0, 255, (10, 70, 66), np.uint8)
SIZE = (20, 9, 9)


@pytest.fixture
def layer(tmp_path: Path) -> str:
    write_layer(tmp_path / "layer", DATA, SIZE, (2, 30, 400))
    return f"file://{tmp_path / 'layer'}"


def test_a_layer_lies_where_it_says_in_z_y_x(layer: str) -> None:
    volume = open_volume(layer, voxel_size_nm=SIZE)

    assert volume.box == VoxelBox((2, 30, 400), DATA.shape)
    assert volume.voxel_size_nm == SIZE
    np.testing.assert_array_equal(DATA, volume.read(volume.box))


def test_a_part_of_a_layer(layer: str) -> None:
    volume = open_volume(f"precomputed://{layer}")
    part = volume.read(VoxelBox((5, 90, 460), (3, 4, 6)))

    np.testing.assert_array_equal(DATA[3:6, 60:64, 60:66], part)
    around = volume.read(VoxelBox((0, 30, 400), (3, 1, 1)), fill=7)
    np.testing.assert_array_equal([7, 7, DATA[0, 0, 0]], around.ravel())
    with pytest.raises(DataError, match="leaves the volume"):
        volume.read(VoxelBox((0, 30, 400), (3, 1, 1)))


def test_a_layer_that_is_not_as_it_should_be(layer: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no mip 2; it has 0: \[20, 9, 9\] nm"):
        open_volume(layer, mip=2)
    with pytest.raises(DataError, match=r"says its voxel size is \[20, 9, 9\] nm"):
        open_volume(layer, voxel_size_nm=(8, 8, 8))
    with pytest.raises(DataError, match="cannot be opened as a precomputed layer"):
        open_volume(f"file://{tmp_path / 'nothing'}")


def test_a_missing_chunk_is_an_error(layer: str, tmp_path: Path) -> None:
    chunks = sorted((tmp_path / "layer" / "9_9_20").iterdir())
    chunks[0].unlink()
    volume = open_volume(layer)
    with pytest.raises(DataError, match="cannot be read"):
        volume.read(volume.box)


def test_planning_looks_at_local_layers_only(layer: str) -> None:
    inside = {"offset": [40, 270, 3600], "shape": [200, 630, 594]}
    check_local_layer({"path": layer}, inside)
    check_local_layer({"path": "gs://nobody/nothing", "mip": 9}, inside)
    for box, mip, message in (
        ({**inside, "offset": [40, 270, 3609]}, 0, r"leaves the volume \[40, 270, 3600\]"),
        (inside, 1, "has no mip 1"),
    ):
        with pytest.raises(DataError, match=message):
            check_local_layer({"path": layer, "mip": mip}, box)


def test_which_paths_are_addresses() -> None:
    assert is_address("gs://bucket/layer") and is_address("precomputed://https://host/layer")
    assert not is_address("data/a.zarr")
    assert is_zarr("s3://bucket/a.zarr/b") and is_zarr("zarr://https://host/a")
    assert not is_zarr("s3://bucket/a") and not is_zarr("precomputed://s3://bucket/a.zarr")
    assert local_folder("precomputed://file:///a/b") == Path("/a/b")
    assert local_folder("gs://bucket/layer") is None


# ---------------------------------------------------------------- n5


def write_n5(
    folder: Path, data: np.ndarray, block: tuple[int, int, int], **attributes: Any
) -> Path:
    """Blocks by the format's own words: big-endian header, then values with x fastest."""
    folder.mkdir(parents=True)
    content = {
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(block[::-1]),
        "dataType": str(data.dtype),
        "compression": {"type": "gzip", "level": 1},
        **attributes,
    }
    (folder / "attributes.json").write_text(json.dumps(content))
    for z, y, x in np.ndindex(*[-(-s // b) for s, b in zip(data.shape, block, strict=True)]):
        part = data[tuple(slice(i * b, (i + 1) * b) for i, b in zip((z, y, x), block, strict=True))]
        file = folder / str(x) / str(y) / str(z)
        file.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(">HH3I", 0, 3, *part.shape[::-1])
        values = part.astype(part.dtype.newbyteorder(">")).tobytes()
        file.write_bytes(header + gzip.compress(values))
    return folder


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 2**63, (7, 12, 9), np.uint64)


def test_n5_is_read_in_z_y_x_with_its_place(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_n5(
        tmp_path / "ids", labels, (4, 5, 6), resolution=[9.0, 9.0, 20.0], offset=[27, 18, 40]
    )
    volume = open_volume(path)

    assert volume.box == VoxelBox((2, 2, 3), (7, 12, 9))
    np.testing.assert_array_equal(labels, volume.read(volume.box))
    part = volume.read(VoxelBox((5, 4, 8), (3, 8, 2)))
    np.testing.assert_array_equal(labels[3:6, 2:10, 5:7], part)


def test_n5_as_another_program_reads_it(tmp_path: Path) -> None:
    """CloudVolume's reader of multi-scale n5, which takes single bytes only to be in order."""
    from cloudvolume import CloudVolume

    write_n5(tmp_path / "all" / "s0", DATA, (4, 50, 60))
    root = {"resolution": [9, 9, 20], "downsamplingFactors": [[1, 1, 1]]}
    (tmp_path / "all" / "attributes.json").write_text(json.dumps(root))
    theirs = CloudVolume(f"n5://file://{tmp_path / 'all'}", progress=False)[:, :, :]
    ours = open_volume(tmp_path / "all" / "s0", voxel_size_nm=SIZE)

    np.testing.assert_array_equal(np.asarray(theirs)[..., 0].T, ours.read(ours.box))


def test_absent_n5_blocks_are_0_and_damaged_ones_an_error(
    tmp_path: Path, labels: np.ndarray
) -> None:
    path = write_n5(tmp_path / "ids", labels, (4, 5, 6))
    (path / "0" / "0" / "0").unlink()
    volume = open_volume(path, voxel_size_nm=SIZE)
    found = volume.read(volume.box)

    assert not found[:4, :5, :6].any()
    np.testing.assert_array_equal(labels[4:], found[4:])
    block = path / "1" / "1" / "1"
    block.write_bytes(block.read_bytes()[:30])
    with pytest.raises(DataError, match=r"1/1/1 is damaged"):
        volume.read(volume.box)


def test_an_n5_that_cannot_be_read(tmp_path: Path, labels: np.ndarray) -> None:
    odd = write_n5(tmp_path / "odd", labels, (4, 5, 6), compression={"type": "zstd"})
    with pytest.raises(DataError, match="compressed with 'zstd'; raw, gzip, bzip2, xz are read"):
        open_volume(odd, voxel_size_nm=SIZE)
    with pytest.raises(DataError, match="is no n5 dataset"):
        open_volume(tmp_path / "no.n5", "a")
