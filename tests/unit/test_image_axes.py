"""Values in metadata belong to axes by the names next to them, in any order, as list or text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from array_files import write_n5
from retrace.errors import DataError
from stated_files import CFG, RAW, n5, ome_zarr, opened, zarr_with

SIZE, PLACE = {"z": 40, "y": 5, "x": 4, "c": 1}, {"z": 400, "y": 45, "x": 8, "c": 0}
DEPTH = ["depth", "height", "width"]


def along(names: Any, **more: Any) -> dict[str, Any]:
    """`multiscales` of an image, whose lists are in the order of these letters."""
    kinds = {"c": {"type": "channel"}}
    space = {"type": "space", "unit": "nanometer"}
    steps = [
        {"type": "scale", "scale": [SIZE[n] for n in names]},
        {"type": "translation", "translation": [PLACE[n] for n in names]},
    ]
    axes = [{"name": n} | kinds.get(n, space) for n in names]
    datasets = [{"path": "raw", "coordinateTransformations": steps}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets, **more}]}


def n5_image(path: Path, group: dict[str, Any], own: dict[str, Any] | None = None) -> Path:
    """An n5 with the dataset `raw`, whose x changes fastest unless `own` says otherwise."""
    path.mkdir()
    (path / "attributes.json").write_text(json.dumps(group))
    n5(path / "raw", own or {})
    return path


# ---------------------------------------------------------------- images in an n5


@pytest.mark.parametrize("names", ["xyz", "zyx"])
def test_values_of_an_n5_image_belong_to_the_named_axes(tmp_path: Path, names: str) -> None:
    volume = opened(n5_image(tmp_path / "a.n5", along(names)), "raw")
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))
    np.testing.assert_array_equal(volume.read(volume.box), RAW)


def test_units_of_an_n5_image_belong_to_the_named_axes(tmp_path: Path) -> None:
    content = along("xyz")
    content["multiscales"][0]["axes"][2]["unit"] = "micrometer"
    volume = opened(n5_image(tmp_path / "a.n5", content), "raw")
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40_000, 5, 4), (400_000, 45, 8))


@pytest.mark.parametrize(
    ("names", "stored"), [("xyzc", "czyx"), ("czyx", "czyx"), ("cxyz", "zyxc"), ("xycz", "zcyx")]
)
def test_channels_of_an_n5_image_are_where_its_axes_say(
    tmp_path: Path, names: str, stored: str
) -> None:
    data = np.arange(2 * 3 * 4 * 5, dtype="u1").reshape(2, 3, 4, 5)
    source = write_n5(tmp_path, data.transpose(["czyx".index(letter) for letter in stored]))
    (tmp_path / "a.n5" / "attributes.json").write_text(json.dumps(along(names)))

    volume = opened(Path(source["path"]), "raw")
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))
    np.testing.assert_array_equal(volume.read(volume.box), data)


def test_an_n5_image_agrees_with_the_axes_of_its_dataset(tmp_path: Path) -> None:
    for name, names in (("a.n5", "zyx"), ("b.n5", "xyz")):
        own = {"axes": ["z", "y", "x"]}  # in the order of `dimensions`: z changes fastest
        volume = opened(n5_image(tmp_path / name, along(names), own), "raw")
        assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))
        np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())
    other = n5_image(tmp_path / "c.n5", along("xyz"), {"axes": ["y", "x", "z"]})
    with pytest.raises(DataError, match=r"`axes` .* and `multiscales` axes .*; correct the file"):
        opened(other, "raw")


def test_lists_of_an_n5_image_without_names_have_the_order_of_the_file(tmp_path: Path) -> None:
    content = along("xyz")
    content["multiscales"][0].pop("axes")
    store = n5_image(tmp_path / "a.n5", content)
    assert opened(store, "raw", voxel_size_nm=[40, 5, 4]).offset_nm == (400, 45, 8)


@pytest.mark.parametrize("axes", [None, "zyx"])
def test_other_names_leave_the_order_of_an_n5_image_open(tmp_path: Path, axes: str | None) -> None:
    content = along("zyx")
    for axis, name in zip(content["multiscales"][0]["axes"], DEPTH, strict=True):
        axis["name"] = name
    transform = {"axes": DEPTH, "scale": CFG, "units": ["nm"] * 3}
    for path in (
        n5_image(tmp_path / "a.n5", content),
        n5_image(tmp_path / "b.n5", {}, {"transform": transform, "axis_names": DEPTH}),
    ):
        with pytest.raises(DataError, match=r"'depth'.* Rename them in attributes.json"):
            opened(path, "raw", axes=axes)


# ---------------------------------------------------------------- names as text


@pytest.mark.parametrize("key", ["axes", "axis_names", "_ARRAY_DIMENSIONS"])
@pytest.mark.parametrize(
    "names", [list("xyz"), "xyz", "XYZ", "x,y,z", "x, y, z", "x y z", '["x", "y", "z"]', ["xyz"]]
)
def test_names_as_text_mean_the_same_as_a_list(tmp_path: Path, key: str, names: Any) -> None:
    attributes = {key: names, "resolution": [4, 5, 40]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        file["raw"].attrs.update(attributes)
    for path, array, data in (
        (n5(tmp_path / "a.n5", attributes), "", RAW),  # there, x, y, z is the usual order
        (zarr_with(tmp_path / "a.zarr", attributes), "", RAW.transpose()),
        (tmp_path / "a.h5", "raw", RAW.transpose()),
    ):
        volume = opened(path, array)
        assert volume.voxel_size_nm == (40, 5, 4)
        np.testing.assert_array_equal(volume.read(volume.box), data)


@pytest.mark.parametrize("names", [np.bytes_("xyz"), np.array([b"x", b"y", b"z"])])
def test_names_of_h5_as_bytes_are_read(tmp_path: Path, names: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        file["raw"].attrs["axes"] = names
    volume = opened(tmp_path / "a.h5", "raw", voxel_size_nm=CFG)
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())


def test_names_in_transforms_and_images_may_be_text(tmp_path: Path) -> None:
    transform = {"axes": "xyz", "scale": [4, 5, 40], "translate": [8, 45, 400], "units": ["nm"] * 3}
    volume = opened(n5(tmp_path / "a.n5", {"transform": transform}))
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))
    axes: Any = "x, y, z"
    image = ome_zarr(tmp_path / "a.zarr", axes, [4, 5, 40], [8, 45, 400])
    volume = opened(image, voxel_size_nm=[40, 5, 4])
    assert volume.offset_nm == (400, 45, 8)
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())


def test_axes_of_no_sense_are_refused(tmp_path: Path) -> None:
    image = ome_zarr(tmp_path / "a.zarr", {"z": 0}, CFG, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"OME-Zarr `axes` are \{'z': 0\}; correct them"):
        opened(image, voxel_size_nm=CFG)


# ---------------------------------------------------------------- other names, and the setting


def named(names: list[str]) -> list[dict[str, str]]:
    return [{"name": name, "type": "space", "unit": "nanometer"} for name in names]


@pytest.mark.parametrize("names", [DEPTH, ["plane", "row", "column"], ["a", "b", "c1"]])
@pytest.mark.parametrize("array", ["", "0"])
def test_other_names_of_an_image_need_the_setting(
    tmp_path: Path, names: list[str], array: str
) -> None:
    path = ome_zarr(tmp_path / "a.zarr", named(names), [40, 5, 4], [400, 45, 8])

    with pytest.raises(DataError, match=r"OME-Zarr axes \['.*add the setting `axes`"):
        opened(path, array)
    volume = opened(path, array, axes="zyx")
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))
    np.testing.assert_array_equal(volume.read(volume.box), RAW)
    volume = opened(path, array, axes="xzy")
    assert (volume.voxel_size_nm, volume.offset_nm) == ((5, 4, 40), (45, 8, 400))
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose(1, 2, 0))


def test_the_setting_counts_for_channels_and_times_of_an_image(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(1, 2, *RAW.shape), dtype="u1")[...] = np.stack([RAW, RAW + 1])[
        None
    ]
    axes = [{"name": "frame", "type": "time"}, {"name": "dye", "type": "channel"}, *named(DEPTH)]
    steps = [{"type": "scale", "scale": [1, 1, 40, 5, 4]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]

    volume = opened(tmp_path / "a.zarr", axes="tczyx", channel=1)
    assert volume.voxel_size_nm == (40, 5, 4)
    np.testing.assert_array_equal(volume.read(volume.box), RAW + 1)


def test_the_setting_counts_for_transforms_of_cellmap(tmp_path: Path) -> None:
    transform = {"axes": DEPTH, "scale": [40, 5, 4], "translate": [400, 45, 8]}
    own = {"transform": transform | {"units": ["nm"] * 3}}
    array = zarr_with(tmp_path / "a.zarr", own)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=RAW.shape, dtype="u1", attributes=own)[...] = RAW
    group.attrs["multiscales"] = [{"datasets": [{"path": "0", **own}]}]

    for path in (array, tmp_path / "b.zarr"):
        with pytest.raises(DataError, match="add the setting `axes`"):
            opened(path)
        volume = opened(path, axes="zyx")
        assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (400, 45, 8))


def test_the_setting_is_not_offered_where_it_does_not_help(tmp_path: Path) -> None:
    flat = zarr_with(tmp_path / "a.zarr", {"axes": ["y", "x"]}, RAW[0])
    six = zarr_with(tmp_path / "b.zarr", {}, RAW[None, None, None].repeat(2, axis=0))
    group = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=2)
    group.create_array("raw", shape=RAW.shape, dtype="u1")[...] = RAW
    group.attrs["transform"] = {"axes": DEPTH, "scale": CFG}

    with pytest.raises(
        DataError, match=r"shape \(32, 40\).* write a single section with the shape"
    ):
        opened(flat, voxel_size_nm=CFG)
    with pytest.raises(DataError, match="copy one image into a file of its own"):
        opened(six, voxel_size_nm=CFG)
    with pytest.raises(DataError, match=r"`transform.axes` is .*Rename them in the file"):
        opened(tmp_path / "c.zarr", "raw", voxel_size_nm=CFG, axes="zyx")


def test_a_single_list_does_not_state_the_factors_of_levels(tmp_path: Path) -> None:
    for name, key in (("a.n5", "scales"), ("b.n5", "downsamplingFactors")):
        path = tmp_path / name
        path.mkdir()
        (path / "attributes.json").write_text(json.dumps({"resolution": CFG, key: [2, 2, 1]}))
        n5(path / "s1", {})
        with pytest.raises(DataError, match=f"`{key}` is .* a list of the factors of each level"):
            opened(path, "s1")
