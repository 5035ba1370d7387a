"""Folders that are no folder of tifs: the message says what they are and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume

from retrace.errors import ConfigError, DataError
from retrace.formats.folder_kinds import MOST_FOLDERS
from retrace.remote.addresses import check_address
from retrace.storage.volumes import open_volume
from stated_files import CFG, RAW, n5, opened


def layer(path: Path) -> Path:
    CloudVolume.from_numpy(
        RAW.T[..., None],
        vol_path=f"file://{path}",
        resolution=CFG[::-1],
        chunk_size=(32, 32, 12),
        progress=False,
    )
    return path


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def error_of(path: Path, array: str = "") -> str:
    """The refusal, which is the same in planning and in jobs."""
    with pytest.raises(DataError) as error:
        opened(path, array, voxel_size_nm=CFG)
    return str(error.value)


def test_a_layer_is_named_as_an_address(tmp_path: Path) -> None:
    path = layer(tmp_path / "pc")
    message = error_of(path)
    assert message.endswith(
        f"it is a precomputed layer, which opens as an address: write file://{path}"
    )
    address = message.rpartition(" ")[2]
    assert open_volume(address).box.shape == RAW.shape
    assert f"file://{path}" in error_of(tmp_path)
    assert f"write file://{path}, and choose a level" in error_of(path / "4_4_40")


def test_a_layer_has_no_array() -> None:
    with pytest.raises(ConfigError, match="or leave out file:// if it is a zarr, n5, h5 or tif"):
        check_address("file:///data/pc", "raw")
    with pytest.raises(ConfigError, match="if it is a zarr$"):
        check_address("s3://bucket/pc", "raw")


def test_an_address_of_this_machine_that_is_no_layer(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "plain", shape=RAW.shape, dtype="u1")[...] = RAW
    with pytest.raises(DataError, match="leave out file:// if it is a zarr, n5, h5 or tif$"):
        open_volume(f"file://{tmp_path}/plain")
    assert opened(tmp_path / "plain", voxel_size_nm=CFG).box.shape == RAW.shape


def test_images_of_another_format_are_named(tmp_path: Path) -> None:
    files(tmp_path, *(f"s{number}.png" for number in range(3)), "a.jpg", "._b.gif", "._c.gif")
    assert "its images are .png, which are not read; convert them to tif" in error_of(tmp_path)


def webknossos(folder: Path, content: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "datasource-properties.json").write_text(json.dumps(content or {}))
    return folder


def test_a_dataset_of_webknossos_names_its_arrays(tmp_path: Path) -> None:
    """Layers are folders of arrays; only the arrays are zarrs."""
    folder = webknossos(tmp_path / "wk")
    for mag in ("1", "2-2-1"):
        array = zarr.create_array(folder / "color" / mag, shape=RAW.shape, dtype="u1")
        array[...] = RAW
    message = error_of(folder, "color/1")
    assert message.endswith(
        "it contains volumes (color/1, color/2-2-1); name one of them as the path: "
        f"{folder / 'color/1'}"
    )
    named = Path(message.rpartition(" ")[2])
    assert opened(named, voxel_size_nm=CFG).box.shape == RAW.shape
    assert "(1, 2-2-1)" in error_of(folder / "color")


@pytest.mark.parametrize("place", ["", "color", "color/1"])
def test_wkw_is_named(tmp_path: Path, place: str) -> None:
    folder = files(webknossos(tmp_path / "wk"), "color/1/header.wkw", "color/1/z0/y0/x0.wkw")
    assert "in its format wkw, which is not read; export it as zarr or tif" in error_of(
        folder / place
    )


def test_other_volumes_in_a_folder_are_named(tmp_path: Path) -> None:
    n5(tmp_path / "b" / "s0", {})
    files(tmp_path, "a/x.txt", "c.h5", "d.zarr/.zgroup", ".hidden/e.h5", "f/s1.tif", "g.n5/x")
    assert "(b/s0, c.h5, d.zarr, f ..); name one of them as the path" in error_of(tmp_path)
    tifffile.imwrite(tmp_path / "stack.tif", RAW)
    assert opened(tmp_path, voxel_size_nm=CFG).box.shape == RAW.shape


def test_other_folders_are_refused_as_before(tmp_path: Path) -> None:
    files(tmp_path, "a/b/c/d.h5", "info", *(f"many/{n}/x" for n in range(MOST_FOLDERS + 1)))
    assert error_of(tmp_path).endswith("put the sections there, or correct the path")
