"""Damaged tifs, folders of tifs, and images in several files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from retrace.errors import DataError
from retrace.formats import headers
from retrace.formats.headers import read_header
from retrace.formats.tiff import TifStack
from retrace.geometry import VoxelBox
from retrace.storage.volumes import open_volume
from tiff_case import CHANNELS, LABELS, RAW, SIZE_NM, described, read_all

# ---------------------------------------------------------------- damage


def cut(path: Path, fraction: float) -> Path:
    """The first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {},
        {"truncate": True},
        {"imagej": True},
        {"imagej": True, "truncate": True},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"compression": "zlib"},
        {"metadata": None, "rowsperstrip": 8},
    ],
)
def test_a_truncated_file_is_refused(
    tmp_path: Path, options: Mapping[str, Any], fraction: float
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAW, photometric="minisblack", **options)
    path = cut(tmp_path / "a.tif", fraction)

    for read in (TifStack, lambda path: read_header(str(path))):
        with pytest.raises(DataError, match=r"a\.tif") as error:
            read(path)
        assert "\n" not in str(error.value)


def end_after(path: Path, page: int) -> None:
    """Ends a file's chain of pages after one of them."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        directory = tif.pages[page].offset
        tif.filehandle.seek(directory)
        count = int.from_bytes(tif.filehandle.read(2), "little")
        tif.filehandle.seek(directory + 2 + 12 * count)
        tif.filehandle.write(bytes(4))


@pytest.mark.parametrize("last", [0, 6])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, "ImageJ states 12 planes .*has {}"),
        ({"ome": True, "metadata": {"axes": "ZYX"}}, r"OME-XML states 12 planes \(Z 12\).*has {}"),
        ({}, r'tifffile states {{"shape": \[12, 32, 40\]}}, .*has {}'),
    ],
)
def test_lost_pages_are_refused(
    tmp_path: Path, options: Mapping[str, Any], message: str, last: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAW, photometric="minisblack", compression="zlib", **options)
    end_after(path, last)

    with pytest.raises(DataError, match=message.format(last + 1)):
        described(path)


def test_planes_of_ome_are_pages_also_without_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, RAW, metadata={"axes": "ZYX"})
    end_after(path, 0)

    with pytest.raises(DataError, match="states 12 planes .*has 1"):
        described(path)


def test_a_chain_of_pages_that_loops_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((130, 8, 8), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        offset, start = tif.pages.next_page_offset, tif.pages[120].offset
        tif.filehandle.seek(offset)
        tif.filehandle.write(start.to_bytes(4, "little"))

    with pytest.raises(DataError, match="truncated or damaged after 130 pages"):
        described(path)


# ---------------------------------------------------------------- folders


def folder_of(folder: Path, **options: Any) -> Path:
    """RAW as one tif for each section."""
    folder.mkdir()
    for number, section in enumerate(RAW):
        tifffile.imwrite(folder / f"slice_{number + 1}.tif", section, **options)
    return folder


def test_folders_are_read_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "f")
    (folder / "._slice_1.tif").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")

    np.testing.assert_array_equal(read_all(folder), RAW)

    monkeypatch.setattr(headers, "MOST_TIFS", 3)
    assert read_header(str(folder)) is None
    (folder / "slice_5.tif").unlink()
    with pytest.raises(DataError, match="section 5 of 1 to 12 is missing"):
        read_header(str(folder))


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        (RAW[0].astype(np.uint16), {}, r"slice_5\.tif is \[32, 40\] uint16.*11 of 12 files"),
        (RAW[0, :, :39], {}, r"slice_5\.tif is \[32, 39\] uint8"),
        (RAW[0], {"photometric": "miniswhite"}, r"slice_5\.tif is .* with 0 as white"),
        (np.stack([RAW[0]] * 3, -1), {}, r"slice_5\.tif is \[32, 40, 3\] uint8 RGB"),
        (RAW[:2], {"metadata": {"axes": "TYX"}}, r"slice_5\.tif is .*ztyx"),
        (RAW[0], {"resolution": (10**6, 10**6), "resolutionunit": 3}, r"slice_5\.tif states X"),
    ],
)
def test_a_section_that_differs_is_named(
    tmp_path: Path, section: np.ndarray, options: Mapping[str, Any], message: str
) -> None:
    folder = folder_of(tmp_path / "f", photometric="minisblack")
    tifffile.imwrite(folder / "slice_5.tif", section, **options)

    with pytest.raises(DataError, match=message):
        described(folder)


def test_a_damaged_section_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f")
    (folder / "slice_7.tif").write_bytes(b"<html>log in</html>")

    for read in (TifStack, lambda path: read_header(str(path))):
        with pytest.raises(DataError, match=r"slice_7\.tif is a web page"):
            read(folder)


def test_byte_orders_of_sections_may_differ(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number, section in enumerate(LABELS):
        order = "<>"[number % 2]
        tifffile.imwrite(tmp_path / f"f/s{number}.tif", section, byteorder=order)

    np.testing.assert_array_equal(read_all(tmp_path / "f"), LABELS)


def test_stacks_of_a_folder_have_the_same_depth_but_for_the_last(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number, part in enumerate((RAW[:5], RAW[5:10], RAW[10:])):
        tifffile.imwrite(tmp_path / f"f/part{number}.tif", part, photometric="minisblack")
    np.testing.assert_array_equal(read_all(tmp_path / "f"), RAW)

    tifffile.imwrite(tmp_path / "f/part0.tif", RAW[:4], photometric="minisblack")
    tifffile.imwrite(tmp_path / "f/part2.tif", RAW[7:], photometric="minisblack")
    with pytest.raises(DataError, match=r"part0\.tif has 4 sections, 2 of 3 files .* have 5"):
        read_all(tmp_path / "f")


def test_folders_of_stacks_are_joined_along_z(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number in range(3):
        part = CHANNELS[4 * number : 4 * number + 4]
        tifffile.imwrite(
            tmp_path / f"f/part{number}.tif", part, imagej=True, metadata={"axes": "ZCYX"}
        )

    np.testing.assert_array_equal(read_all(tmp_path / "f", channel=1), 255 - RAW)


def ome_of_files(folder: Path, order: Mapping[int, int]) -> Path:
    """An OME-TIFF of one file for each section; `order`: the section of each file."""
    folder.mkdir()
    sizes = 'SizeX="40" SizeY="32" SizeZ="3" SizeC="1" SizeT="1" Type="uint8"'
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="p{number}.tif">urn:uuid:{number}</UUID></TiffData>'
        for number, z in order.items()
    )
    pixels = f'<Pixels ID="P:0" DimensionOrder="XYZCT" {sizes}>{planes}</Pixels>'
    for number, z in order.items():
        xml = f'<OME UUID="urn:uuid:{number}"><Image ID="I:0">{pixels}</Image></OME>'
        tifffile.imwrite(folder / f"p{number}.tif", RAW[z], metadata=None, description=xml)
    return folder


def test_an_image_of_several_files_has_the_order_of_its_metadata(tmp_path: Path) -> None:
    folder = ome_of_files(tmp_path / "f", {0: 2, 1: 0, 2: 1})

    np.testing.assert_array_equal(read_all(folder), RAW[:3])

    with pytest.raises(DataError, match=r"puts planes into 2 other files, such as p1\.tif"):
        described(folder / "p0.tif")
    (folder / "stray_9.tif").touch()
    with pytest.raises(DataError, match=r"stray_9\.tif is not named like"):
        described(folder)
    lacking = ome_of_files(tmp_path / "g", {0: 2, 1: 0, 2: 1})
    (lacking / "p2.tif").unlink()
    with pytest.raises(DataError, match=r"OME-XML states 3 planes \(Z 3\).*has 2.*no p2\.tif"):
        described(lacking)


def test_metadata_in_another_file_are_refused(tmp_path: Path) -> None:
    xml = '<OME UUID="urn:uuid:1"><BinaryOnly MetadataFile="all.companion.ome" UUID="2"/></OME>'
    tifffile.imwrite(tmp_path / "a.tif", RAW, metadata=None, description=xml)

    with pytest.raises(DataError, match=r"a\.tif: its OME-XML is in all\.companion\.ome"):
        described(tmp_path / "a.tif")


def test_stacks_of_other_programs_are_read(tmp_path: Path) -> None:
    sections = [PIL.Image.fromarray(section) for section in RAW]
    sections[0].save(tmp_path / "grey.tif", save_all=True, append_images=sections[1:])
    masks = [PIL.Image.fromarray(section > 127) for section in RAW]
    fax = {"compression": "group4"}
    masks[0].save(tmp_path / "mask.tif", save_all=True, append_images=masks[1:], **fax)

    np.testing.assert_array_equal(read_all(tmp_path / "grey.tif"), RAW)
    np.testing.assert_array_equal(read_all(tmp_path / "mask.tif"), RAW > 127)


def test_a_stack_above_4_gb_is_read_plane_by_plane(tmp_path: Path) -> None:
    """ImageJ describes it by one page; the file is sparse, so it needs no space."""
    path = tmp_path / "large.tif"
    options = {"imagej": True, "truncate": True, "metadata": {"axes": "ZYX"}, "bigtiff": False}
    tifffile.imwrite(path, shape=(1100, 2000, 2000), dtype=np.uint8, **options)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        start = tif.pages[0].dataoffsets[0]
        tif.filehandle.seek(start + 1099 * 4_000_000 + 123)
        tif.filehandle.write(b"\x07")

    volume = open_volume(path, voxel_size_nm=SIZE_NM)
    assert volume.box.shape == (1100, 2000, 2000)
    assert volume.read(VoxelBox((1098, 0, 122), (2, 1, 3))).tolist() == [[[0, 0, 0]], [[0, 7, 0]]]

    with path.open("r+b") as file:
        file.truncate(start + 1099 * 4_000_000)
    with pytest.raises(DataError, match=r"'slices': 1100.* it is truncated or was changed"):
        open_volume(path, voxel_size_nm=SIZE_NM)
