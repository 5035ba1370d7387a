"""What files state about size, position and axes is compared with the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from retrace.errors import DataError
from retrace.evaluation.skeletons import Skeletons
from retrace.geometry import NmBox, VoxelBox, in_nm, whole_voxels
from stated_files import CFG, RAW, n5, ome_zarr, opened, space, zarr_with


def test_a_files_own_position_wins_over_that_of_its_volume(tmp_path: Path) -> None:
    stated = zarr_with(tmp_path / "a.zarr", {"resolution": CFG, "offset": [1200, 440, 440]})
    silent = zarr_with(tmp_path / "b.zarr", {"resolution": CFG})

    assert opened(stated, default_offset_nm=[1000, 400, 400]).offset_nm == (1200, 440, 440)
    assert opened(silent, default_offset_nm=[1000, 400, 400]).offset_nm == (1000, 400, 400)
    with pytest.raises(DataError, match=r"\[1200, 440, 440\] nm, and `offset_nm` \[1000, 400, 400"):
        opened(stated, offset_nm=[1000, 400, 400])


@pytest.mark.parametrize(
    ("size", "offset", "voxel"),
    [
        ([45, 4.6, 4.6], [450, 230, 230], (10, 50, 50)),
        ([8.5, 8.5, 8.5], [136, 136, 136], (16, 16, 16)),
        ([35, 3.58, 3.58], [35, 358, 3.58], (1, 100, 1)),
        ([0.1, 0.2, 0.3], [0.3, 0.6, 0.9], (3, 3, 3)),
        ([10 / 3] * 3, [1e7 / 3, 10 / 3, 0], (10**6, 1, 0)),
    ],
)
def test_fractions_of_nm_are_exact(
    tmp_path: Path, size: list[float], offset: list[float], voxel: tuple[int, int, int]
) -> None:
    volume = opened(zarr_with(tmp_path / "a.zarr", {"resolution": size, "offset": offset}))

    assert volume.voxel_size_nm == tuple(size)
    assert volume.box == VoxelBox(voxel, RAW.shape)
    with pytest.raises(DataError, match="contradict each other"):
        opened(tmp_path / "a.zarr", voxel_size_nm=[round(v) or 1 for v in size])


def test_attributes_of_32_bits_are_their_decimals(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        file["raw"].attrs["resolution"] = np.array([45, 4.6, 4.6], np.float32)

    volume = opened(tmp_path / "a.h5", "raw", voxel_size_nm=[45, 4.6, 4.6])
    assert volume.voxel_size_nm == opened(tmp_path / "a.h5", "raw").voxel_size_nm == (45, 4.6, 4.6)


def test_a_box_far_from_the_origin_contains_itself() -> None:
    box = VoxelBox((0, 0, 9093759), (9, 9, 9)).to_nm((0.001, 0.001, 944.129))
    assert box.contains(box)  # its length is no difference of two floats of that size
    assert not box.contains(box.shift((0, 0, 0.001)))


positions = st.integers(-(10**7), 10**7)
thousandths = st.integers(1, 10**6).map(lambda n: n / 1000)


@given(st.tuples(positions, positions, positions), st.tuples(*[thousandths] * 3))
def test_voxels_and_nm_are_the_same_place(
    voxels: tuple[int, int, int], size: tuple[float, float, float]
) -> None:
    assert whole_voxels(in_nm(voxels, size), size) == voxels
    box = VoxelBox(voxels, (3, 4, 5))
    assert box.to_nm(size).to_voxels(size) == box
    assert box.to_nm(size).grow(in_nm((1, 2, 3), size)).to_voxels(size) == box.grow((1, 2, 3))
    whole = NmBox(in_nm(voxels, size), in_nm((9, 9, 9), size))
    assert whole.contains(VoxelBox(voxels, (9, 9, 9)).to_nm(size))


def test_nodes_on_the_border_of_a_voxel_are_in_it() -> None:
    index = np.arange(1000)
    position = np.array([in_nm((n, n, n), (45, 4.6, 3.58)) for n in index.tolist()])
    nodes = Skeletons(position, np.ones(1000, np.int64), np.zeros((0, 2), np.int64))
    np.testing.assert_array_equal(nodes.voxels((45, 4.6, 3.58)), np.stack([index] * 3, axis=1))


def test_a_size_without_a_unit_counts_if_the_config_states_the_same(tmp_path: Path) -> None:
    ome = ome_zarr(tmp_path / "a.zarr", space(), CFG, [400, 40, 40])
    assert opened(ome, voxel_size_nm=CFG).offset_nm == (400, 40, 40)
    assert opened(ome, "0", voxel_size_nm=CFG).offset_nm == (400, 40, 40)
    with pytest.raises(DataError, match="without a unit, and the config states none"):
        opened(ome)
    with pytest.raises(DataError, match=r"without a unit, and the config says \[8, 8, 8\]"):
        opened(ome, voxel_size_nm=[8, 8, 8])


def test_a_scale_of_1_without_a_unit_states_nothing(tmp_path: Path) -> None:
    ome = ome_zarr(tmp_path / "a.zarr", space(), [1, 1, 1], None)
    assert opened(ome, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
    moved = ome_zarr(tmp_path / "b.zarr", space(), [1, 1, 1], [10, 0, 0])
    with pytest.raises(DataError, match="without a unit"):
        opened(moved, voxel_size_nm=CFG)


@pytest.mark.parametrize("unit", ["nm", "nanometer"])
def test_short_units_are_units(tmp_path: Path, unit: str) -> None:
    ome = ome_zarr(tmp_path / "a.zarr", space(unit), [8, 8, 8], [8, 0, 80])
    assert opened(ome).offset_nm == (8, 0, 80)
    with pytest.raises(DataError, match=r"\[8, 8, 8\] nm, and `voxel_size_nm` \[40, 4, 4\]"):
        opened(ome, voxel_size_nm=CFG)


def test_axes_of_an_ome_zarr_may_be_in_any_order(tmp_path: Path) -> None:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "xyz"]
    ome = ome_zarr(tmp_path / "a.zarr", axes, [4, 5, 40], [8, 10, 120])
    volume = opened(ome)
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 5, 4), (120, 10, 8))
    np.testing.assert_array_equal(volume.read(volume.box), RAW.transpose())
    assert opened(ome, axes="xyz").offset_nm == (120, 10, 8)
    with pytest.raises(DataError, match=r"axes contradict .* and `axes: zyx` in the config"):
        opened(ome, axes="zyx")


def test_axes_of_version_0_3_are_names(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=RAW.shape, dtype="u1")[...] = RAW
    image = {"version": "0.3", "axes": ["z", "y", "x"], "datasets": [{"path": "0"}]}
    group.attrs["multiscales"] = [image]
    assert opened(tmp_path / "a.zarr", voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


def test_voxel_size_is_an_attribute_as_resolution_is(tmp_path: Path) -> None:
    attrs = {"axis_names": ["z", "y", "x"], "units": ["nm"] * 3, "voxel_size": [8, 8, 8]}
    store = zarr_with(tmp_path / "a.zarr", attrs | {"offset": [80, 80, 80]})
    assert opened(store).box.offset == (10, 10, 10)
    with pytest.raises(DataError, match=r"`voxel_size` \[8, 8, 8\] nm, and `voxel_size_nm` \[10"):
        opened(store, voxel_size_nm=[10, 10, 10])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"resolution": 8}, (8, 8, 8)),
        ({"resolution": [0.04, 0.004, 0.004], "units": "um"}, (40, 4, 4)),
        ({"element_size_um": [0.04, 0.0046, 0.0046]}, (40, 4.6, 4.6)),
        ({"resolution": [4, 4, 40], "axis_names": ["x", "y", "z"]}, (40, 4, 4)),
    ],
)
def test_attributes_of_zarr_and_h5(
    tmp_path: Path, attributes: dict[str, Any], expected: tuple[float, ...]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        file["raw"].attrs.update(attributes)
    assert opened(zarr_with(tmp_path / "a.zarr", attributes)).voxel_size_nm == expected
    assert opened(tmp_path / "a.h5", "raw").voxel_size_nm == expected


@pytest.mark.parametrize(
    "value", ["abc", [8, 8], [8, 8, 0], [8, -8, 8], [float("nan")] * 3, None, {}, [[8, 8, 8]]]
)
def test_sizes_that_make_no_sense_are_refused_by_name(tmp_path: Path, value: Any) -> None:
    store = zarr_with(tmp_path / "a.zarr", {"resolution": value})
    with pytest.raises(DataError, match="`resolution`|has no voxel size"):
        opened(store)


def test_n5_states_its_place_in_three_ways(tmp_path: Path) -> None:
    transform = {"axes": ["z", "y", "x"], "scale": CFG, "translate": [400, 40, 40]}
    cellmap = n5(tmp_path / "a.n5", {"transform": transform | {"units": ["nm"] * 3}})
    assert opened(cellmap, voxel_size_nm=CFG).offset_nm == (400, 40, 40)
    viewer = n5(tmp_path / "b.n5", {"pixelResolution": {"dimensions": [8, 9, 10], "unit": "nm"}})
    assert opened(viewer).voxel_size_nm == (10, 9, 8)
    with pytest.raises(DataError, match=r"`pixelResolution` \[10, 9, 8\] nm, and"):
        opened(viewer, voxel_size_nm=CFG)
    paintera = n5(tmp_path / "c.n5", {"resolution": [4, 4, 40], "offset": [40, 44, 400]})
    assert opened(paintera).offset_nm == (400, 44, 40)
    both = n5(tmp_path / "d.n5", {"resolution": [4, 4, 40], "transform": transform})
    assert opened(both, voxel_size_nm=CFG).offset_nm == (400, 40, 40)


def test_two_statements_in_one_file_must_agree(tmp_path: Path) -> None:
    attrs = {"resolution": [8, 8, 8], "element_size_um": [0.04, 0.004, 0.004]}
    with pytest.raises(DataError, match=r"`resolution` \[8, 8, 8\] nm, and `element_size_um`"):
        opened(zarr_with(tmp_path / "a.zarr", attrs))


def test_consolidated_metadata_that_are_out_of_date_are_not_used(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    raw = group.create_array("raw", shape=RAW.shape, dtype="u1", chunks=(2, 32, 40))
    raw[...] = RAW
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+", use_consolidated=False)
    group.create_array("labels", shape=RAW.shape, dtype="u8")[...] = 1
    raw = group["raw"]
    raw.resize((14, 32, 40))
    raw[12:] = 1
    raw.attrs["resolution"] = [8, 8, 8]

    assert opened(tmp_path / "a.zarr", "labels", voxel_size_nm=CFG).box.shape == RAW.shape
    assert opened(tmp_path / "a.zarr", "raw").box.shape == (14, 32, 40)
    with pytest.raises(DataError, match="contradict each other"):
        opened(tmp_path / "a.zarr", "raw", voxel_size_nm=CFG)


@pytest.mark.parametrize("dtype", [">f4", ">u2", ">u8", "<i4"])
def test_values_have_the_byte_order_of_this_machine(tmp_path: Path, dtype: str) -> None:
    data = RAW.astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = data
    volume = opened(tmp_path / "a.h5", "raw", voxel_size_nm=CFG)
    values = volume.read(volume.box)
    assert values.dtype.isnative and volume.dtype.isnative
    np.testing.assert_array_equal(values, data)
