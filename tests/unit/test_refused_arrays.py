"""What a source asks for and its file does not have is refused, while planning and in jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from retrace.errors import DataError
from stated_files import CFG, RAW, n5, ome_zarr, opened, space, zarr_with


def h5_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["raw"] = RAW
        file["text"] = np.full((2, 3, 4), b"abc")
        file["pair"] = np.zeros((2, 3, 4), [("a", "u1"), ("b", "f4")])
        file["complex"] = RAW.astype("c8")
        file["nothing"] = h5py.Empty("u1")
        file["lost"] = h5py.SoftLink("/nowhere")
    return path


def tif(path: Path) -> Path:
    tifffile.imwrite(path, RAW, photometric="minisblack")
    return path


@pytest.mark.parametrize(
    ("name", "make", "array"),
    [
        ("a.zarr", lambda path: zarr_with(path, {}), ""),
        ("a.n5", lambda path: n5(path, {}), ""),
        ("a.h5", h5_file, "raw"),
        ("a.tif", tif, ""),
    ],
)
def test_arrays_and_levels_that_do_not_exist_are_refused(
    tmp_path: Path, name: str, make: Callable[[Path], Path], array: str
) -> None:
    path = make(tmp_path / name)
    opened(path, array, voxel_size_nm=CFG)

    with pytest.raises(DataError, match="no mip 1; leave out `mip`"):
        opened(path, array, voxel_size_nm=CFG, mip=1)
    if name != "a.tif":
        with pytest.raises(DataError, match=r"no array 'x'|a single array and has no"):
            opened(path, "x", voxel_size_nm=CFG)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        ("text", "text holds bytes24"),
        ("pair", "pair holds void40"),
        ("complex", "complex holds complex64"),
        ("nothing", "'nothing' in .* has no values"),
        ("lost", "no array 'lost'"),
    ],
)
def test_datasets_without_numbers_are_refused(tmp_path: Path, array: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        opened(h5_file(tmp_path / "a.h5"), array, voxel_size_nm=CFG)


def test_two_descriptions_of_one_image_must_agree(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", space("nanometer"), CFG, None)
    group = zarr.open_group(path, mode="a", zarr_format=2)
    image = group.attrs["multiscales"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": image}
    assert opened(path).voxel_size_nm == (40, 4, 4)

    text = json.dumps(image).replace("[40, 4, 4]", "[8, 8, 8]")
    group.attrs["ome"] = {"version": "0.5", "multiscales": json.loads(text)}
    with pytest.raises(DataError, match="two statements of its voxel size"):
        opened(path)


@pytest.mark.parametrize(
    "names", [["depth", "height", "width"], ["width", "height", "depth"], ["plane", "row", "col"]]
)
def test_other_names_of_axes_need_the_setting(tmp_path: Path, names: list[str]) -> None:
    path = zarr_with(tmp_path / "a.zarr", {"_ARRAY_DIMENSIONS": names})

    with pytest.raises(DataError, match="add the setting `axes`"):
        opened(path, voxel_size_nm=CFG)
    assert opened(path, voxel_size_nm=CFG, axes="xyz").array.shape == RAW.shape[::-1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dataType": "object"}, "`dataType` is 'object'; allowed: uint8"),
        ({"blockSize": [0, 1, 1]}, r"`blockSize` is \[0, 1, 1\]"),
        ({"blockSize": [40, 32]}, "axes are missing"),
        ({"dimensions": [40.0, 32, 12]}, "whole numbers above 0"),
        ({"dimensions": "x"}, "whole numbers above 0"),
    ],
)
def test_impossible_sizes_and_types_of_n5_are_named(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    path = n5(tmp_path / "a.n5", change)
    with pytest.raises(DataError, match=match):
        opened(path, voxel_size_nm=CFG)


def test_an_n5_block_that_is_too_small_or_empty_is_refused(tmp_path: Path) -> None:
    path = n5(tmp_path / "a.n5", {})
    file = path / "attributes.json"
    content = json.loads(file.read_text())
    deeper = [*content["dimensions"][:2], 2 * content["dimensions"][2]]
    file.write_text(json.dumps({**content, "dimensions": deeper, "blockSize": deeper}))
    volume = opened(path, voxel_size_nm=CFG)
    with pytest.raises(DataError, match="where the volume has"):
        volume.read(volume.box)

    file.write_text(json.dumps(content))
    next(block for block in path.rglob("*") if block.name == "0" and block.is_file()).write_bytes(
        b"\0"
    )
    volume = opened(path, voxel_size_nm=CFG)
    with pytest.raises(DataError, match="ends within its header"):
        volume.read(volume.box)


def test_a_contradiction_within_a_file_is_corrected_there(tmp_path: Path) -> None:
    path = zarr_with(tmp_path / "a.zarr", {"resolution": CFG, "voxel_size": [8, 8, 8]})
    with pytest.raises(DataError, match=r"\[8, 8, 8\] nm \(z, y, x\); correct the file$"):
        opened(path)
    with pytest.raises(DataError, match=r"; correct the file$"):
        opened(path, voxel_size_nm=CFG)
