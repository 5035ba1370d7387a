"""Tifs of ImageJ, OME-TIFF and others, next to tifffile: values, axes and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.storage.images import open_image
from retrace.storage.volumes import open_volume
from tiff_case import CHANNELS, LABELS, RAW, SIZE_NM, described, read_all

# ---------------------------------------------------------------- axes


WRITTEN: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]] = {
    "plain": (RAW, {"metadata": None}),
    "tifffile": (RAW, {}),
    "one page for all": (LABELS, {"truncate": True}),
    "ImageJ, one page for all": (LABELS, {"imagej": True, "truncate": True}),
    "ImageJ without axes": (RAW, {"imagej": True}),
    "ImageJ, sections": (RAW, {"imagej": True, "metadata": {"axes": "ZYX"}}),
    "ImageJ, big-endian, one page": (
        LABELS,
        {"imagej": True, "byteorder": ">", "truncate": True, "metadata": {"axes": "ZYX"}},
    ),
    "OME-TIFF": (RAW, {"ome": True, "metadata": {"axes": "ZYX"}}),
    "compressed": (RAW, {"compression": "zlib", "predictor": True}),
    "tiles": (RAW, {"tile": (16, 16), "compression": "zlib"}),
    "big-endian": (LABELS, {"byteorder": ">"}),
    "BigTIFF": (RAW, {"bigtiff": True}),
    "float": (RAW.astype(np.float32) / 255, {"compression": "zlib"}),
    "one section": (RAW[:1], {}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_stacks_of_sections_are_read_as_tifffile_reads_them(tmp_path: Path, name: str) -> None:
    data, options = WRITTEN[name]
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", **options)

    values = read_all(tmp_path / "a.tif")

    np.testing.assert_array_equal(values, data)
    np.testing.assert_array_equal(values, tifffile.imread(tmp_path / "a.tif").reshape(data.shape))
    volume = open_volume(tmp_path / "a.tif", voxel_size_nm=SIZE_NM)
    if len(data) > 1:
        part = VoxelBox((3, 5, 7), (4, 9, 11))
        np.testing.assert_array_equal(volume.read(part), data[3:7, 5:14, 7:18])


def test_pages_that_are_written_one_by_one_are_sections(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for section in RAW:
            tif.write(section)

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), RAW)


HYPERSTACKS: list[tuple[str, dict[str, Any]]] = [
    *(("ZCYX", {"imagej": True, "truncate": truncate}) for truncate in (False, True)),
    *((axes, {"truncate": cut}) for axes in ("ZCYX", "CZYX") for cut in (False, True)),
    *((axes, {"ome": True}) for axes in ("ZCYX", "CZYX")),
]
"""Axes and options that tifffile can write."""


@pytest.mark.parametrize(("axes", "options"), HYPERSTACKS)
def test_a_channel_of_a_hyperstack_is_chosen(
    tmp_path: Path, axes: str, options: Mapping[str, Any]
) -> None:
    data = CHANNELS if axes == "ZCYX" else CHANNELS.swapaxes(0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        metadata={"axes": axes},
        photometric="minisblack",
        **options,
    )

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", channel=0), RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", channel=1), 255 - RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), CHANNELS.swapaxes(0, 1))
    assert described(tmp_path / "a.tif").axes == axes.lower()
    with pytest.raises(DataError, match="2 channels, numbered from 0; there is no 2"):
        read_all(tmp_path / "a.tif", channel=2)
    with pytest.raises(DataError, match=r"axes contradict each other.*`axes: zyx`"):
        read_all(tmp_path / "a.tif", axes="zyx")


def test_composites_of_one_section_are_channels(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", RAW[:2], imagej=True, metadata={"axes": "CYX", "mode": "composite"}
    )

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", channel=1), RAW[1:2])


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
def test_times_are_refused(tmp_path: Path, options: Mapping[str, Any]) -> None:
    data = RAW.reshape(3, 4, 32, 40)
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "TZYX"}, **options)

    with pytest.raises(DataError, match="3 entries along its axis 't'"):
        read_all(tmp_path / "a.tif")

    tifffile.imwrite(tmp_path / "b.tif", RAW, metadata={"axes": "TYX"}, **options)
    with pytest.raises(DataError, match="12 entries along its axis 't' .*or store them along z"):
        read_all(tmp_path / "b.tif")


def test_axes_without_names_are_those_of_the_config(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CHANNELS, photometric="minisblack")
    tifffile.imwrite(tmp_path / "x.tif", RAW.T, photometric="minisblack")

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", axes="zcyx", channel=0), RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "x.tif", axes="xyz"), RAW)


# ---------------------------------------------------------------- other pages


def test_thumbnails_and_pyramids_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(RAW, photometric="minisblack", tile=(16, 16), subifds=1)
        tif.write(RAW[:, ::2, ::2], photometric="minisblack", tile=(16, 16), subfiletype=1)
        tif.write(RAW[0, ::8, ::8], photometric="minisblack", subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "plain.tif") as tif:
        for section in RAW:
            tif.write(section, metadata=None)
            tif.write(section[::8, ::8], subfiletype=1, metadata=None)

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "plain.tif"), RAW)


def test_files_with_several_images_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(RAW, photometric="minisblack", metadata={"axes": "ZYX", "Name": "left"})
        tif.write(RAW[:3], photometric="minisblack", metadata={"axes": "ZYX", "Name": "right"})

    with pytest.raises(DataError, match=r"2 images \(left \[12, 32, 40\], right \[3, 32, 40\]\)"):
        described(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("odd", [RAW[0, :16], RAW[0].astype(np.uint16)])
def test_a_page_that_differs_is_named(tmp_path: Path, odd: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for number in range(5):
            page = odd if number == 3 else RAW[number]
            tif.write(page, photometric="minisblack", metadata=None)

    with pytest.raises(DataError, match=r"a\.tif: page 3 is .*4 of 5 pages are \[32, 40\] uint8"):
        described(tmp_path / "a.tif")


# ---------------------------------------------------------------- sizes and positions


def size_of(path: Path) -> tuple[float | None, ...] | None:
    """The voxel size in nm that a file states."""
    sizes = described(path).voxel_sizes
    return sizes[0].values if sizes else None


@pytest.mark.parametrize(
    ("pixel", "metadata", "expected"),
    [
        ((217391, 10**6), {"spacing": 40, "unit": "nm"}, (40, 4.6, 4.6)),
        ((1, 4), {"spacing": 40.5, "unit": "nm"}, (40.5, 4, 4)),
        ((250, 1), {"spacing": 0.04, "unit": "um"}, (40, 4, 4)),
        ((217391304, 10**6), {"spacing": 0.04, "unit": "\\u00B5m"}, (40, 4.6, 4.6)),
        ((279330, 10**6), {"spacing": 45, "unit": "nm"}, (45, 3.58, 3.58)),
        ((1, 4), {"unit": "nm"}, (None, 4, 4)),
        ((1, 1), {"spacing": 40, "unit": "nm"}, (40, None, None)),
        ((1, 4), {"spacing": 40, "unit": "pixel"}, None),
        ((1, 4), {"spacing": 40}, None),
        ((72, 1), {}, None),
        ((1, 1), {}, None),
    ],
)
def test_the_size_of_imagej_is_read(
    tmp_path: Path, pixel: tuple[int, int], metadata: Mapping[str, Any], expected: Any
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        RAW,
        imagej=True,
        resolution=(pixel, pixel),
        metadata={"axes": "ZYX", **metadata},
    )

    assert size_of(tmp_path / "a.tif") == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"PhysicalSizeZ": 0.04, "PhysicalSizeY": 0.0046, "PhysicalSizeX": 0.0046}, (40, 4.6, 4.6)),
        ({"PhysicalSizeY": 4.6, "PhysicalSizeX": 4.6}, (None, 4600, 4600)),
        ({"PhysicalSizeZ": 1, "PhysicalSizeY": 1, "PhysicalSizeX": 1}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("unit", [None, "nm", "pixel"])
def test_the_size_of_ome_is_read(
    tmp_path: Path, metadata: Mapping[str, float], expected: Any, unit: str | None
) -> None:
    units = {f"{key}Unit": unit for key in metadata} if unit else {}
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        RAW,
        metadata={"axes": "ZYX", **metadata, **units},
        resolution=(1, 1),
    )

    if unit == "pixel" or not metadata:
        expected = None
    elif unit == "nm":
        values = [metadata.get(f"PhysicalSize{axis}") for axis in "ZYX"]
        expected = tuple(values)
    assert size_of(tmp_path / "a.ome.tif") == expected


@pytest.mark.parametrize(
    ("density", "unit", "expected"),
    [
        (2_500_000, "CENTIMETER", (None, 4, 4)),
        (25_400_000 / 4.6, "INCH", (None, 4.6, 4.6)),
        (300, "INCH", None),
        (72, "INCH", None),
        (4, "NONE", None),
    ],
)
def test_resolution_tags_state_the_size_unless_it_is_a_print_density(
    tmp_path: Path, density: float, unit: str, expected: Any
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAW, resolution=(density, density), resolutionunit=unit)

    assert size_of(tmp_path / "a.tif") == expected


def test_sizes_are_compared_with_the_config_along_the_axes_that_are_stated(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", RAW, imagej=True, resolution=(1 / 4.6, 1 / 4.6), metadata={"unit": "nm"}
    )

    assert open_volume(tmp_path / "a.tif", "", (40, 4.6, 4.6)).voxel_size_nm == (40, 4.6, 4.6)
    with pytest.raises(DataError, match=r"contradict each other: ImageJ's pixel size \[unknown, 4"):
        open_volume(tmp_path / "a.tif", "", (40, 4, 4))
    with pytest.raises(DataError, match=r"no voxel size along z; add `voxel_size_nm`"):
        open_volume(tmp_path / "a.tif")


def ome_with_positions(path: Path, z_nm: np.ndarray, x_nm: np.ndarray) -> Path:
    """An OME-TIFF of 12 planes with voxels of 40, 4 and 4 nm."""
    sizes = {"PhysicalSizeZ": 40, "PhysicalSizeY": 4, "PhysicalSizeX": 4}
    places = {"Z": z_nm, "Y": np.full(12, 80), "X": x_nm}
    plane = {f"Position{axis}": list(map(float, values)) for axis, values in places.items()}
    units = {f"{key}Unit": "nm" for key in sizes}
    plane_units = {f"{key}Unit": ["nm"] * 12 for key in plane}
    metadata = {"axes": "ZYX", **sizes, **units, "Plane": {**plane, **plane_units}}
    tifffile.imwrite(path, RAW, metadata=metadata)
    return path


def test_the_position_of_planes_is_that_of_the_volume(tmp_path: Path) -> None:
    rising = 400 + 40 * np.arange(12)
    x = np.full(12, 120)
    placed = ome_with_positions(tmp_path / "a.ome.tif", rising, x)
    assert open_volume(placed).offset_nm == (400, 80, 120)
    with pytest.raises(DataError, match="`offset_nm`"):
        open_volume(placed, offset_nm=(0, 0, 0))

    stage = ome_with_positions(tmp_path / "b.ome.tif", rising, x + np.arange(12))
    assert not open_volume(stage).is_placed
    with pytest.raises(DataError, match=r"b\.ome\.tif: PositionZ .* falls from plane to plane"):
        open_volume(ome_with_positions(tmp_path / "b.ome.tif", rising[::-1], x))


def test_the_origin_of_imagej_is_the_position_of_the_volume(tmp_path: Path) -> None:
    metadata = {"unit": "nm", "spacing": 40, "xorigin": -30, "zorigin": -10}
    tifffile.imwrite(
        tmp_path / "a.tif", RAW, imagej=True, resolution=(1 / 4, 1 / 4), metadata=metadata
    )

    assert open_volume(tmp_path / "a.tif").offset_nm == (400, 0, 120)


# ---------------------------------------------------------------- colours, and 0 as white


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("samples", [3, 4])
def test_colours_are_channels_or_ids(tmp_path: Path, planar: str, samples: int) -> None:
    data = np.stack([RAW, RAW[::-1], RAW[:, ::-1], RAW][:samples], 1 if planar == "separate" else 3)
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        photometric="rgb",
        planarconfig=planar,
        extrasamples=[1] * (samples - 3),
    )

    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", channel=0), RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", channel=2), RAW[:, ::-1])
    ids = RAW.astype(np.uint32) * 65536 + RAW[::-1].astype(np.uint32) * 256 + RAW[:, ::-1]
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), ids)
    assert described(tmp_path / "a.tif").is_colour


def test_the_axes_of_the_config_come_before_colours_in_h5(tmp_path: Path) -> None:
    import h5py

    colours = np.stack([RAW, RAW[::-1], RAW[:, ::-1]], -1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = colours
        file["cxyz"] = np.moveaxis(RAW.T[:, :, :3], -1, -1)[None].repeat(6, 0)

    path = tmp_path / "a.h5"
    np.testing.assert_array_equal(read_all(path, array="raw", axes="zyxc", channel=1), RAW[::-1])
    np.testing.assert_array_equal(read_all(path, array="raw", channel=0), RAW)
    assert read_all(path, array="raw").dtype == np.uint32
    sections = read_all(path, array="cxyz", axes="cxyz", channel=5)
    np.testing.assert_array_equal(sections, RAW[:3])


def test_greys_of_a_palette_are_in_order_or_refused(tmp_path: Path) -> None:
    rising = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None], 3, 0)
    few = np.where(np.arange(256) < 64, 4 * rising, 0).astype(np.uint16)
    path = tmp_path / "a.tif"
    for values, palette in ((RAW, rising), (RAW // 4, few)):
        tifffile.imwrite(path, values, photometric="palette", colormap=palette)
        assert not described(path).inverted
        np.testing.assert_array_equal(read_all(path), values)

    shuffled = rising[:, np.random.default_rng(0).permutation(256)]
    tifffile.imwrite(path, RAW, photometric="palette", colormap=shuffled)
    with pytest.raises(DataError, match=r"a\.tif: its palette of greys is in disorder"):
        read_all(path)


def test_zero_as_white_is_described(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "white.tif", RAW, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "black.tif", RAW, photometric="minisblack")
    falling = np.repeat(np.linspace(65535, 0, 256).astype(np.uint16)[None], 3, 0)
    tifffile.imwrite(tmp_path / "falling.tif", RAW, photometric="palette", colormap=falling)
    tifffile.imwrite(tmp_path / "rising.tif", RAW, photometric="palette", colormap=falling[:, ::-1])

    names = ("white", "black", "falling", "rising")
    inverted = [described(tmp_path / f"{name}.tif").inverted for name in names]

    assert inverted == [True, False, True, False]
    np.testing.assert_array_equal(read_all(tmp_path / "white.tif"), RAW)


def test_jobs_refuse_raw_in_colours_or_with_zero_as_white(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([RAW] * 3, -1), photometric="rgb")
    tifffile.imwrite(tmp_path / "white.tif", RAW, photometric="miniswhite")

    def image(name: str, **settings: Any) -> np.ndarray:
        fields = {"path": str(tmp_path / name), "voxel_size_nm": SIZE_NM, **settings}
        volume = open_image(Source.model_validate(fields))
        return volume.read(volume.box)

    for settings in ({}, {"normalize": {"percentiles": [1, 99]}}):
        with pytest.raises(DataError, match=r"rgb\.tif has colours .*`channel: 0`"):
            image("rgb.tif", **settings)
    np.testing.assert_array_equal(image("rgb.tif", channel=0), RAW)
    with pytest.raises(DataError, match=r"white\.tif says that 0 is white"):
        image("white.tif")
    np.testing.assert_array_equal(image("white.tif", normalize={"invert": True}), 255 - RAW)
    np.testing.assert_array_equal(image("white.tif", normalize={"invert": False}), RAW)
