"""h5 files with attributes that nothing needs, of types that Python or numpy do not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from retrace.errors import DataError
from retrace.formats.hdf5 import OF_ARRAY, OF_GROUP
from stated_files import CFG, RAW, opened


def two_scales(dataset: h5py.Dataset, name: str) -> None:
    """Two dimension scales for each axis, as HDF5 itself writes them."""
    for axis, length in enumerate(RAW.shape):
        for number in range(2):
            scale = dataset.parent.create_dataset(f"s{axis}{number}", data=np.arange(length))
            scale.make_scale(f"n{axis}{number}")
            dataset.dims[axis].attach_scale(scale)


def equal_rows(node: h5py.Group | h5py.Dataset, name: str) -> None:
    """Three rows of variable length that are equally long."""
    rows = np.empty(3, object)
    rows[:] = [np.arange(2)] * 3
    node.attrs.create(name, rows, dtype=h5py.vlen_dtype("i4"))


def moment(node: h5py.Group | h5py.Dataset, name: str) -> None:
    """A time of HDF5."""
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(node.id, name.encode(), h5py.h5t.UNIX_D32LE.copy(), space)


def empty(node: h5py.Group | h5py.Dataset, name: str) -> None:
    """An attribute without values, as netCDF writes empty texts."""
    node.attrs[name] = h5py.Empty("S1")


def h5_with(path: Path, write: Any, name: str, place: str = "images/raw") -> Path:
    with h5py.File(path, "w") as file:
        file["images/raw"] = RAW
        write(file[place], name)
    return path


@pytest.mark.parametrize("write", [two_scales, equal_rows, moment, empty])
@pytest.mark.parametrize("place", ["images/raw", "images", "/"])
def test_attributes_that_nothing_needs_are_not_read(tmp_path: Path, write: Any, place: str) -> None:
    if write is two_scales and place != "images/raw":
        return
    path = h5_with(tmp_path / "a.h5", write, "acquired", place)
    volume = opened(path, "images/raw", voxel_size_nm=CFG)
    np.testing.assert_array_equal(volume.read(volume.box), RAW)


@pytest.mark.parametrize("write", [equal_rows, moment])
def test_a_size_of_another_type_is_refused_by_name(tmp_path: Path, write: Any) -> None:
    for place in ("images/raw", "images"):
        path = h5_with(tmp_path / "a.h5", write, "resolution", place)
        with pytest.raises(DataError, match=r"`resolution` contains .*; correct the attribute"):
            opened(path, "images/raw", voxel_size_nm=CFG)


@pytest.mark.parametrize("key", ["units", "axes", "scales", "axistags"])
@pytest.mark.parametrize("write", [equal_rows, moment, empty])
def test_attributes_next_to_no_size_state_nothing(tmp_path: Path, write: Any, key: str) -> None:
    path = h5_with(tmp_path / "a.h5", write, key)
    assert opened(path, "images/raw", voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


def test_an_empty_size_is_none(tmp_path: Path) -> None:
    path = h5_with(tmp_path / "a.h5", empty, "resolution")
    with pytest.raises(DataError, match="has no voxel size"):
        opened(path, "images/raw")


def test_all_keys_of_the_documentation_are_read() -> None:
    sizes = {"resolution", "voxel_size", "offset", "units", "pixelResolution", "element_size_um"}
    assert sizes | {"downsamplingFactors", "scales"} <= OF_GROUP
    assert {"axis_names", "axes", "_ARRAY_DIMENSIONS", "DIMENSION_LABELS", "axistags"} <= OF_ARRAY
