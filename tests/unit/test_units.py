"""Units of files: lengths are read, other quantities state nothing, unknown names are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pytest
import tifffile

from retrace.errors import DataError
from retrace.formats.attributes import unit_in_nm
from stated_files import CFG, RAW, n5, opened, zarr_with

NO_LENGTHS = ["reference frame", "gray value", "sec", "s", "counts", "1", "DN", "a.u.", "pixel"]


@pytest.mark.parametrize("unit", [*NO_LENGTHS, "Reference Frame ", "", None, 1, b"counts"])
def test_units_of_other_quantities_are_no_lengths(unit: Any) -> None:
    assert unit_in_nm(unit) is None


@pytest.mark.parametrize(("unit", "nm"), [("inch", 25_400_000), (b"in", 25_400_000), ("Å", 0.1)])
def test_lengths_in_nm(unit: Any, nm: float) -> None:
    length = unit_in_nm(unit)
    assert length is not None and float(length) == nm


def test_an_unknown_unit_is_refused_with_its_key() -> None:
    allowed = "pm, å, nm, um, mm, cm, in, m, and their names"
    with pytest.raises(DataError, match=rf"`scale\.unit`: 'mikrons' is no unit .* {allowed}"):
        unit_in_nm("mikrons", "scale.unit")


# ---------------------------------------------------------------- tif


def ome(
    path: Path, unit: str, places: Mapping[str, Any] | None = None, size: float = 0.004
) -> Path:
    """An OME-TIFF with PhysicalSize in `unit`, ten times as large along z."""
    sizes = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeZ": 10 * size}
    units = {f"{key}Unit": unit for key in sizes}
    plane = {"Plane": places} if places else {}
    metadata = {"axes": "ZYX", **sizes, **units, **plane}
    tifffile.imwrite(path, RAW, ome=True, photometric="minisblack", metadata=metadata)
    return path


def imagej(path: Path, per_unit: float, **metadata: Any) -> Path:
    """A tif of ImageJ with so many pixels per unit."""
    options = {"imagej": True, "resolution": (per_unit, per_unit)}
    tifffile.imwrite(path, RAW, metadata={"axes": "ZYX", **metadata}, **options)
    return path


def test_a_position_in_the_reference_frame_is_not_stated(tmp_path: Path) -> None:
    values = {"X": [0.0] * 12, "Y": [0.0] * 12, "Z": [0.04 * number for number in range(12)]}
    places = {f"Position{axis}": column for axis, column in values.items()}
    for unit, is_placed in (("reference frame", False), ("µm", True)):
        units = {f"{key}Unit": [unit] * 12 for key in places}
        volume = opened(ome(tmp_path / "a.ome.tif", "µm", places | units))
        assert (volume.voxel_size_nm, volume.is_placed) == (tuple(CFG), is_placed)


@pytest.mark.parametrize(
    ("unit", "size"), [("reference frame", 4), ("pixel", 4), ("in", 1 / 72), ("cm", 1 / 72)]
)
def test_sizes_of_ome_that_state_nothing(tmp_path: Path, unit: str, size: float) -> None:
    path = ome(tmp_path / "a.ome.tif", unit, size=size)
    assert opened(path, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
    with pytest.raises(DataError, match="has no voxel size"):
        opened(path)


@pytest.mark.parametrize("value", ["NaN", "INF", "-1", "unknown"])
def test_sizes_of_ome_that_are_no_numbers_are_not_stated(tmp_path: Path, value: str) -> None:
    path = ome(tmp_path / "a.ome.tif", "µm")
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    assert xml is not None and 'PhysicalSizeZ="0.04"' in xml
    tifffile.tiffcomment(path, xml.replace('Z="0.04"', f'Z="{value}"').encode())

    assert opened(path, voxel_size_nm=[50, 4, 4]).voxel_size_nm == (50, 4, 4)
    with pytest.raises(DataError, match=r"\[unknown, 4, 4\] nm .*no voxel size along z"):
        opened(path)


@pytest.mark.parametrize("unit", [*NO_LENGTHS, "inch", "in", "cm"])
def test_units_of_imagej_that_state_nothing(tmp_path: Path, unit: str) -> None:
    """Fiji saves 72 pixels per inch where it knows nothing else."""
    path = imagej(tmp_path / "a.tif", 72, unit=unit, spacing=1.5)
    assert opened(path, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


@pytest.mark.parametrize(("unit", "per_unit"), [("inch", 25_400_000 / 4), ("cm", 2_500_000)])
def test_inches_and_centimetres_state_sizes_below_1_micrometre(
    tmp_path: Path, unit: str, per_unit: float
) -> None:
    path = imagej(tmp_path / "a.tif", per_unit, unit=unit, zunit="nm", spacing=40)
    assert opened(path).voxel_size_nm == tuple(CFG)


def test_the_spacing_along_z_has_its_own_unit(tmp_path: Path) -> None:
    """Sections may be moments: their distance is then no length."""
    path = imagej(tmp_path / "a.tif", 1 / 4, unit="nm", zunit="sec", spacing=2)
    assert opened(path, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


def test_an_unknown_unit_of_a_tif_is_refused_with_the_next_step(tmp_path: Path) -> None:
    step = "correct it in the file, .* `pixel` states nothing: `voxel_size_nm` .* is used$"
    path = imagej(tmp_path / "a.tif", 0.25, unit="mikrons")
    with pytest.raises(DataError, match=rf"a\.tif: ImageJ's `unit`: 'mikrons' is no .*; {step}"):
        opened(path, voxel_size_nm=CFG)
    path = ome(tmp_path / "b.ome.tif", "pc")
    with pytest.raises(DataError, match=rf"OME-XML's `PhysicalSizeZUnit`: 'pc' is no .*; {step}"):
        opened(path, voxel_size_nm=CFG)


def test_a_unit_of_no_size_is_not_looked_at(tmp_path: Path) -> None:
    """One pixel per unit, and no spacing: the tif states no size, whatever its unit is."""
    path = imagej(tmp_path / "a.tif", 1, unit="mikrons")
    assert opened(path, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


# ---------------------------------------------------------------- attributes


@pytest.mark.parametrize("unit", ["counts", "1", "DN", "electrons per pixel", ["a.u.", "a.u."]])
def test_units_of_grey_values_are_ignored(tmp_path: Path, unit: Any) -> None:
    """Of xarray and NeXus: no attribute states a size or a position."""
    attributes = {"units": unit, "_ARRAY_DIMENSIONS": ["z", "y", "x"]}
    path = zarr_with(tmp_path / "a.zarr", attributes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
        file["raw"].attrs["units"] = unit
        file.attrs["units"] = unit
    for volume in (path, ""), (tmp_path / "a.h5", "raw"):
        assert opened(*volume, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
    transform = {"transform": {"units": unit, "axes": ["lat", "lon"]}}
    assert opened(zarr_with(tmp_path / "b.zarr", transform), voxel_size_nm=CFG).box.shape


def test_units_next_to_a_size_are_those_of_the_size(tmp_path: Path) -> None:
    counts = zarr_with(tmp_path / "a.zarr", {"resolution": CFG, "units": "counts"})
    assert opened(counts, voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
    with pytest.raises(DataError, match=r"\[40, 4, 4\] without a unit.* says \[8, 8, 8\] nm"):
        opened(counts, voxel_size_nm=[8, 8, 8])
    unknown = zarr_with(tmp_path / "b.zarr", {"resolution": CFG, "units": "mikrons"})
    with pytest.raises(DataError, match="b.zarr: `units`: 'mikrons' .*; correct the attribute"):
        opened(unknown, voxel_size_nm=CFG)


def test_a_print_density_of_n5_states_nothing(tmp_path: Path) -> None:
    """Fiji's n5 of an image with 72 pixels per inch."""
    content = {"pixelResolution": {"dimensions": [1 / 72] * 3, "unit": "inch"}}
    assert opened(n5(tmp_path / "a.n5", content), voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)


def test_factors_of_a_group_that_states_no_size_are_not_looked_at(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images/s1"] = RAW
        file["images"].attrs["scales"] = ["low", "high"]
    path = tmp_path / "a.h5"
    assert opened(path, "images/s1", voxel_size_nm=CFG).voxel_size_nm == tuple(CFG)
