"""What each convention of metadata states is read exactly, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from retrace.errors import DataError
from retrace.storage.volumes import open_volume
from stated_files import CFG, RAW, n5, opened, space, zarr_with

NM = space("nanometer")


def image(path: Path, content: dict[str, Any], *, levels: int = 1, within: str = "ome") -> Path:
    """An OME-Zarr of format 3 (or 2) with arrays 0, 1 .. of the same data."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if within == "ome" else 2)
    for number in range(levels):
        array = group.create_array(str(number), shape=RAW.shape, dtype="u1", chunks=RAW.shape)
        array[...] = RAW
    group.attrs.put({"ome": content} if within == "ome" else content)
    return path


def multiscale(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The metadata of version 0.5 of an image with one level."""
    datasets = [{"path": "0", "coordinateTransformations": list(steps)}]
    return {"version": "0.5", "multiscales": [{"axes": NM, "datasets": datasets, **more}]}


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def move(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


# ---------------------------------------------------------------- OME-NGFF


def test_transformations_of_an_image_follow_those_of_its_level(tmp_path: Path) -> None:
    content = multiscale(
        scale(10, 1, 1), move(1, 2, 3), coordinateTransformations=[scale(4, 4, 4), move(40, 0, 4)]
    )
    volume = opened(image(tmp_path / "a.zarr", content))
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 4, 4), (44, 8, 16))


def test_sequences_identities_and_plain_affines_are_read(tmp_path: Path) -> None:
    steps = {"type": "sequence", "transformations": [scale(40, 4, 4), move(400, 40, 8)]}
    volume = opened(image(tmp_path / "a.zarr", multiscale({"type": "identity"}, steps)))
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 4, 4), (400, 40, 8))
    matrix = {"type": "affine", "affine": [[40, 0, 0, 400], [0, 4, 0, 40], [0, 0, 4, 8]]}
    same = opened(image(tmp_path / "b.zarr", multiscale(matrix)))
    assert (same.voxel_size_nm, same.offset_nm) == (volume.voxel_size_nm, volume.offset_nm)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "rotation", "rotation": [[1, 0], [0, 1]]}, "type 'rotation'"),
        ({"type": "mapAxis", "mapAxis": [2, 1, 0]}, "type 'mapAxis'"),
        ({"type": "scale", "path": "scales"}, "type 'scale' with its values at a path"),
        ({"type": "affine", "path": "matrix"}, "affine transformation that rotates"),
        ({"type": "affine", "affine": [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]}, "rotates"),
        ({"scale": [4, 4, 4]}, "type None"),
        (scale(4, 4), "must be a number, or one for each of the axes zyx"),
        (scale(40, -4, 4), "voxel sizes must be above 0"),
        (scale(float("nan"), 4, 4), "no finite number"),
        ({"type": "scale", "scale": ["40", 4, 4]}, "contains '40', which is no finite number"),
    ],
)
def test_other_transformations_are_refused_by_name(
    tmp_path: Path, step: dict[str, Any], message: str
) -> None:
    store = image(tmp_path / "a.zarr", multiscale(scale(40, 4, 4), step))
    for array in ("", "0"):
        with pytest.raises(DataError, match=message):
            opened(store, array, voxel_size_nm=CFG)


def version_0_6(name: str, *further: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An image in the coordinate system `name`; there is a second one in micrometres."""
    systems = [{"name": "micro", "axes": space("micrometer")}, {"name": "nano", "axes": NM}]
    steps = {"type": "sequence", "transformations": [scale(40, 4, 4), move(400, 40, 8)]}
    steps |= {"input": {"path": "0"}, "output": {"name": name}}
    datasets = [{"path": "0", "coordinateTransformations": [steps]}, *further]
    one = {"coordinateSystems": systems, "datasets": datasets, **more}
    return {"version": "0.6", "multiscales": [one]}


def test_axes_of_version_0_6_are_those_of_the_levels_coordinate_system(tmp_path: Path) -> None:
    assert opened(image(tmp_path / "a.zarr", version_0_6("nano"))).offset_nm == (400, 40, 8)
    micro = opened(image(tmp_path / "b.zarr", version_0_6("micro")))
    assert micro.voxel_size_nm == (40_000, 4_000, 4_000)
    with pytest.raises(DataError, match=r"coordinate systems \['absent'\] of \['micro', 'nano'\]"):
        opened(image(tmp_path / "c.zarr", version_0_6("absent")))


def test_further_coordinate_systems_of_version_0_6_are_refused(tmp_path: Path) -> None:
    further = scale(10, 10, 10) | {"input": {"name": "nano"}, "output": {"name": "micro"}}
    content = version_0_6("nano", coordinateTransformations=[further])
    with pytest.raises(DataError, match="further coordinate systems"):
        opened(image(tmp_path / "a.zarr", content))


def test_paths_of_levels_may_begin_with_a_dot(tmp_path: Path) -> None:
    content = multiscale(scale(40, 4, 4))
    content["multiscales"][0]["datasets"][0]["path"] = "./0"
    store = image(tmp_path / "a.zarr", content)
    assert opened(store).voxel_size_nm == opened(store, "0").voxel_size_nm == tuple(CFG)


def test_a_translation_without_a_scale_is_a_position(tmp_path: Path) -> None:
    store = image(tmp_path / "a.zarr", multiscale(move(400, 40, 8)))
    assert opened(store, voxel_size_nm=CFG).offset_nm == (400, 40, 8)
    silent = image(tmp_path / "b.zarr", multiscale(move(400, 40, 8), axes=space()))
    with pytest.raises(DataError, match="translation .* without a unit"):
        opened(silent, voxel_size_nm=CFG)


@pytest.mark.parametrize("attributes", [{"resolution": 1e300}, {"offset": [4 * 10**18, 0, 0]}])
def test_numbers_beyond_all_volumes_are_refused_by_name(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    store = zarr_with(tmp_path / "a.zarr", {"resolution": CFG} | attributes)
    with pytest.raises(DataError, match="a.zarr") as refused:
        opened(store)
    assert len(str(refused.value)) < 250


def test_units_of_time_do_not_matter(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}, *NM]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(1, 1, *RAW.shape), dtype="u1")[...] = RAW[None, None]
    content = multiscale(scale(1, 1, 40, 4, 4), axes=axes)
    group.attrs["multiscales"] = content["multiscales"]
    assert opened(tmp_path / "a.zarr").voxel_size_nm == tuple(CFG)


def test_a_scale_of_the_image_alone_is_that_of_level_0(tmp_path: Path) -> None:
    datasets = [{"path": "0"}, {"path": "1"}]
    one = {"axes": NM, "datasets": datasets, "coordinateTransformations": [scale(40, 4, 4)]}
    store = image(tmp_path / "a.zarr", {"multiscales": [one]}, levels=2)
    assert opened(store).voxel_size_nm == tuple(CFG)
    with pytest.raises(DataError, match="level 1 .* states no scale"):
        opened(store, mip=1)


def test_several_images_in_a_group_are_refused_with_their_arrays(tmp_path: Path) -> None:
    one = multiscale(scale(40, 4, 4))["multiscales"][0]
    other = {**one, "datasets": [{**one["datasets"][0], "path": "1"}]}
    store = image(tmp_path / "a.zarr", {"multiscales": [one, other]}, levels=2)
    with pytest.raises(DataError, match="has 2 OME-Zarr images; set `array` to one of: 0, 1"):
        opened(store)
    assert opened(store, "1").voxel_size_nm == tuple(CFG)


@pytest.mark.parametrize("within", ["ome", "attributes"])
def test_a_collection_of_images_is_refused_with_its_arrays(tmp_path: Path, within: str) -> None:
    image(tmp_path / "a.zarr", {"bioformats2raw.layout": 3}, levels=0, within=within)
    inner = multiscale(scale(40, 4, 4))
    for name in ("0", "1"):
        image(tmp_path / "a.zarr" / name, inner, within=within)
    with pytest.raises(DataError, match=r"\(bioformats2raw\), .* groups 0, 1 .*: 0/0, 1/0"):
        opened(tmp_path / "a.zarr")
    assert opened(tmp_path / "a.zarr", "0").voxel_size_nm == tuple(CFG)


def test_labels_of_an_image_are_an_image_of_their_own(tmp_path: Path) -> None:
    store = image(tmp_path / "a.zarr", multiscale(scale(40, 4, 4)))
    zarr.open_group(store / "labels", mode="w").attrs["ome"] = {"labels": ["cells"]}
    image(store / "labels" / "cells", multiscale(scale(40, 4, 4), move(80, 8, 8)))
    assert opened(store, "labels/cells").offset_nm == (80, 8, 8)
    with pytest.raises(DataError, match="labels is a group, .* one of: labels/cells/0"):
        opened(store, "labels")


def test_a_path_inside_a_store_is_read_with_its_groups(tmp_path: Path) -> None:
    store = image(tmp_path / "a.zarr", multiscale(scale(40, 4, 4), move(400, 40, 8)))
    for path in (store / "0", f"file://{store}/0"):
        assert opened(path).offset_nm == (400, 40, 8)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="contradict each other"):
            opened(path, voxel_size_nm=[8, 8, 8])  # type: ignore[arg-type]


# ---------------------------------------------------------------- groups above an array


def test_the_size_of_a_group_counts_for_its_arrays(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("raw", shape=RAW.shape, dtype="u1")[...] = RAW
    group.attrs.put({"resolution": CFG, "offset": [400, 40, 8]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v/raw"] = RAW
        file["v"].attrs.update({"resolution": CFG, "offset": [400, 40, 8]})
    for path, array in ((tmp_path / "a.zarr", "raw"), (tmp_path / "a.h5", "v/raw")):
        assert opened(path, array).offset_nm == (400, 40, 8)
        with pytest.raises(DataError, match=r"`resolution` \[40, 4, 4\] nm of the group"):
            opened(path, array, voxel_size_nm=[8, 8, 8])
    group["raw"].attrs["resolution"] = [8, 8, 8]
    with pytest.raises(DataError, match=r"`resolution` \[8, 8, 8\] nm, and `resolution` \[40, 4"):
        opened(tmp_path / "a.zarr", "raw")


def pyramid(path: Path, group: dict[str, Any], *levels: dict[str, Any]) -> Path:
    """An n5 group with datasets s0, s1 .."""
    path.mkdir()
    (path / "attributes.json").write_text(json.dumps(group))
    for number, attributes in enumerate(levels):
        n5(path / f"s{number}", attributes)
    return path


def test_levels_of_an_n5_have_a_multiple_of_the_size_of_their_group(tmp_path: Path) -> None:
    base = {"resolution": [4, 5, 40], "offset": [8, 10, 400]}
    paintera = pyramid(tmp_path / "a.n5", base, {}, {"downsamplingFactors": [2, 2, 1]})
    assert opened(paintera, "s0").voxel_size_nm == (40, 5, 4)
    assert opened(paintera, "s1").voxel_size_nm == (40, 10, 8)
    assert opened(paintera, "s1").offset_nm == (400, 10, 8)
    listed = pyramid(tmp_path / "b.n5", base | {"scales": [[1, 1, 1], [4, 2, 1]]}, {}, {})
    assert opened(listed, "s1").voxel_size_nm == (40, 10, 16)
    own = pyramid(tmp_path / "c.n5", base, {}, {"resolution": [8, 10, 40]})
    assert opened(own, "s1").voxel_size_nm == (40, 10, 8)
    unknown = pyramid(tmp_path / "d.n5", base, {}, {})
    with pytest.raises(DataError, match="nothing states how much coarser s1 is"):
        opened(unknown, "s1")


def test_pixel_resolution_is_that_of_the_finest_level(tmp_path: Path) -> None:
    size = {"pixelResolution": {"dimensions": [4, 5, 40], "unit": "nm"}}
    viewer = pyramid(tmp_path / "a.n5", {}, size, size | {"downsamplingFactors": [2, 2, 1]})
    assert opened(viewer, "s1").voxel_size_nm == (40, 10, 8)
    mixed = {"resolution": [4, 5, 40], "downsamplingFactors": [2, 2, 1]}
    with pytest.raises(DataError, match="`resolution` .* is next to `downsamplingFactors`"):
        opened(pyramid(tmp_path / "b.n5", {}, {}, mixed), "s1")


@pytest.mark.parametrize("own", [True, False])
def test_cellmap_writes_centres_of_coarser_levels(tmp_path: Path, own: bool) -> None:
    def transform(size: float, start: float) -> dict[str, Any]:
        values = {"scale": [size] * 3, "translate": [start] * 3}
        return {"transform": {"axes": ["z", "y", "x"], "units": ["nm"] * 3, **values}}

    levels = [transform(4, 400), transform(8, 402)]
    datasets = [{"path": f"s{i}", **level} for i, level in enumerate(levels)]
    group = {"multiscales": [{"name": "raw", "datasets": datasets}]}
    store = pyramid(tmp_path / "a.n5", group, *(levels if own else [{}, {}]))
    assert opened(store, "s1").offset_nm == (400, 400, 400)
    assert opened(store, "s1").voxel_size_nm == (8, 8, 8)


# ---------------------------------------------------------------- WEBKNOSSOS


def webknossos(folder: Path, scale: Any, **mag: Any) -> Path:
    """A dataset with a layer `color`, whose array has the axes c, x, y, z."""
    data = RAW.transpose()[None]
    for name in ("1", "2-2-1"):
        array = zarr.create_array(
            folder / "color" / name, shape=data.shape, dtype="u1", zarr_format=2
        )
        array[...] = data
    axes = {"c": 0, "x": 1, "y": 2, "z": 3}
    mags = [{"mag": [1, 1, 1], "axisOrder": axes, **mag}, {"mag": [2, 2, 1], "axisOrder": axes}]
    layer = {"name": "color", "dataFormat": "zarr", "mags": mags}
    properties = {"dataLayers": [layer], "scale": scale}
    (folder / "datasource-properties.json").write_text(json.dumps(properties))
    return folder


@pytest.mark.parametrize("scale", [[4.6, 5, 45], {"factor": [0.0046, 0.005, 0.045], "unit": "um"}])
def test_a_dataset_of_webknossos_states_size_and_axes(tmp_path: Path, scale: Any) -> None:
    dataset = webknossos(tmp_path / "wk", scale, path="./color/1")
    volume = opened(dataset / "color" / "1")
    assert volume.voxel_size_nm == (45, 5, 4.6)
    np.testing.assert_array_equal(volume.read(volume.box), RAW)
    assert opened(dataset / "color" / "2-2-1").voxel_size_nm == (45, 10, 9.2)
    with pytest.raises(DataError, match=r"`scale` times `mag` \[45, 5, 4.6\] nm in datasource"):
        opened(dataset / "color" / "1", voxel_size_nm=CFG)


def test_a_scale_in_voxels_must_be_that_of_the_config(tmp_path: Path) -> None:
    scale = {"factor": [4, 4, 40], "unit": "pixel"}
    array = webknossos(tmp_path / "wk", scale) / "color" / "1"
    assert opened(array, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
    with pytest.raises(DataError, match=r"`scale` .* without a unit"):
        opened(array)


def test_an_n5_of_webknossos_has_the_axes_of_its_dataset(tmp_path: Path) -> None:
    dataset = webknossos(tmp_path / "wk", [4.6, 5, 45])
    folder = dataset / "color" / "4"
    n5(folder, {})
    size = [1, *RAW.shape[::-1]]
    content = json.loads((folder / "attributes.json").read_text())
    content |= {"dimensions": size, "blockSize": size}
    (folder / "attributes.json").write_text(json.dumps(content))
    header = b"\0\0\0\4" + b"".join(n.to_bytes(4, "big") for n in size)
    (folder / "0/0/0").unlink()
    (folder / "0/0/0").mkdir()
    (folder / "0/0/0/0").write_bytes(header + RAW.tobytes())
    properties = json.loads((dataset / "datasource-properties.json").read_text())
    properties["dataLayers"][0]["mags"].append(
        {"mag": 4, "axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}
    )
    (dataset / "datasource-properties.json").write_text(json.dumps(properties))

    volume = opened(folder)
    assert volume.voxel_size_nm == (180, 20, 18.4)
    np.testing.assert_array_equal(volume.read(volume.box), RAW)


@pytest.mark.parametrize("scale", [[4, 4], [4, 0, 40], "4", {"factor": None}, [4, 4, "40"]])
def test_a_scale_of_no_sense_is_refused(tmp_path: Path, scale: Any) -> None:
    with pytest.raises(DataError, match=r"`scale`.* \(datasource-properties.json\); correct it"):
        opened(webknossos(tmp_path / "wk", scale) / "color" / "1", voxel_size_nm=CFG)


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    "attributes",
    [
        {"axis_names": ["x", "y", "z"]},
        {"_ARRAY_DIMENSIONS": ["x", "y", "z"]},
        {"DIMENSION_LABELS": ["x", "y", "z"]},
        {"axes": "xyz"},
        {"axistags": json.dumps({"axes": [{"key": k, "typeFlags": 2} for k in "xyz"]})},
        {"transform": {"axes": ["x", "y", "z"], "scale": [4, 5, 40], "units": ["nm"] * 3}},
    ],
)
def test_named_axes_are_read(tmp_path: Path, attributes: dict[str, Any]) -> None:
    size = {} if "transform" in attributes else {"resolution": [4, 5, 40]}
    volume = opened(zarr_with(tmp_path / "a.zarr", attributes | size))
    assert volume.voxel_size_nm == (40, 5, 4)
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())


def test_labels_of_h5_dimensions_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        for dimension, label in zip(file["raw"].dims, "xyz", strict=True):
            dimension.label = label
        file["silent"] = RAW
        file["silent"].dims[0].label = ""
    volume = opened(tmp_path / "a.h5", "raw", voxel_size_nm=CFG)
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())
    assert opened(tmp_path / "a.h5", "silent", voxel_size_nm=CFG).box.shape == RAW.shape


def test_channels_of_funlib_have_no_voxel_size(tmp_path: Path) -> None:
    attributes = {"axis_names": ["sample^", "z", "y", "x"], "units": ["nm"] * 3}
    attributes |= {"voxel_size": CFG, "offset": [400, 40, 8], "types": ["channel"] + ["space"] * 3}
    volume = opened(zarr_with(tmp_path / "a.zarr", attributes, np.stack([RAW, RAW])))
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 4, 4), (400, 40, 8))
    assert volume.channels == 2


def test_axes_that_are_not_understood_need_the_setting(tmp_path: Path) -> None:
    store = zarr_with(tmp_path / "a.zarr", {"axis_names": ["y", "x", "section"]})
    with pytest.raises(DataError, match=r"`axis_names` \['y', 'x', 'section'\], which are not"):
        opened(store, voxel_size_nm=CFG)
    volume = opened(store, voxel_size_nm=CFG, axes="yxz")
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose(2, 0, 1))


def test_two_statements_of_axes_must_agree(tmp_path: Path) -> None:
    attributes = {"axis_names": ["z", "y", "x"], "_ARRAY_DIMENSIONS": ["x", "y", "z"]}
    with pytest.raises(DataError, match=r"`axis_names` .* and `_ARRAY_DIMENSIONS`"):
        opened(zarr_with(tmp_path / "a.zarr", attributes), voxel_size_nm=CFG)


# ---------------------------------------------------------------- values of no sense


@pytest.mark.parametrize("key", ["resolution", "voxel_size", "element_size_um", "pixelResolution"])
@pytest.mark.parametrize("value", ["8", ["8", "8", "8"], [8] * 5, [8, -8, 8], [True] * 3])
def test_values_of_no_sense_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"`{key}`") as refused:
        opened(zarr_with(tmp_path / "a.zarr", {key: value}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["40", [1, 2], [float("inf"), 0, 0]])
def test_positions_of_no_sense_are_one_line(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match="`offset`"):
        opened(zarr_with(tmp_path / "a.zarr", {"voxel_size": CFG, "offset": value}))


def test_a_transform_without_axes_has_the_order_of_its_array(tmp_path: Path) -> None:
    transform = {"scale": [40, 4.6, 4.6], "translate": [400, 46, 92], "units": ["nm"] * 3}
    for path, shape in (("three.zarr", (4, 5, 6)), ("four.zarr", (2, 4, 5, 6))):
        attributes = {"transform": transform}
        zarr.create_array(tmp_path / path, shape=shape, dtype="u1", attributes=attributes)[...] = 1
        volume = open_volume(tmp_path / path)
        assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 4.6, 4.6), (400, 46, 92))
