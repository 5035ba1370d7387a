"""Tif stacks and folders of tifs, which read like zarr arrays: shape, dtype, slicing."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.formats.contract import Convention, Description, FormatPage, Statement
from retrace.formats.folder_kinds import TIF_SUFFIXES
from retrace.formats.reader import Reader, refuse_level
from retrace.formats.section_order import section_files
from retrace.formats.tiff_file import TifFile, read_file, read_pixels
from retrace.formats.tiff_pages import read_plane

SAME_PIXELS = 0.01
"""Relative difference of the pixel sizes of sections: microscopes write measured ones."""


class TifStack:
    """A tif, or the sections of a folder (tiff_file.TifFile); planes are read one by one."""

    def __init__(self, path: Path, check: FileCheck | None = None) -> None:
        """DataError for files that are damaged, incomplete or do not belong together."""
        self.file, self.check = read_tif(path), check
        self.shape = self.file.shape
        self.dtype: np.dtype[Any] = self.file.pixels.dtype
        self.description = _description(self.file)

    def __getitem__(self, key: Any) -> np.ndarray:
        given = key if isinstance(key, tuple) else (key,)
        full = (*given, *[slice(None)] * (len(self.shape) - len(given)))
        depth = len(self.file.outer)
        rows = [
            range(size)[part] if isinstance(part, slice) else [range(size)[part]]
            for part, size in zip(full, self.file.outer, strict=False)
        ]
        planes = [self._plane(index)[full[depth:]] for index in itertools.product(*rows)]
        if not planes:
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[full]
        values = np.stack(planes).reshape(*(len(row) for row in rows), *planes[0].shape)
        return values[tuple(slice(None) if isinstance(k, slice) else 0 for k in full[:depth])]

    def _plane(self, index: Sequence[int]) -> np.ndarray:
        number = int(np.ravel_multi_index(tuple(index), self.file.outer))
        return read_plane(self.file.planes[number], self.file.pixels, self.check)


def describe(path: Path) -> Description:
    """What a tif or the files of a folder say, without their data; as the opened array."""
    return _description(read_tif(path))


def _description(file: TifFile) -> Description:
    return Description(
        file.shape,
        file.pixels.dtype.name,
        file.byte_order,
        file.axes,
        file.axes_written,
        voxel_sizes=file.stated.voxel_sizes,
        positions=file.stated.positions,
        completeness="each chunk that is read",
        inverted=file.inverted,
        is_colour=file.pixels.is_colour and file.axes is not None,
        drops_channel=True,
    )


def read_tif(path: Path) -> TifFile:
    """The image of a file or folder; DataError as for `TifStack`."""
    if path.is_dir():
        return _read_folder(path, section_files(path))
    file = read_file(path)
    if file.is_multifile:
        others = sorted({plane.file.name for plane in file.planes} - {path.name})
        raise DataError(
            f"{path}: its OME-XML puts planes into {len(others)} other files, such as {others[0]}; "
            "put exactly these files into a folder, and name the folder as `path`"
        )
    return file


# ---------------------------------------------------------------- folders


def _read_folder(folder: Path, paths: Sequence[Path]) -> TifFile:
    """The sections of a folder, one file after the other."""
    first = read_file(paths[0])
    if first.is_multifile:
        return _of_one_image(folder, paths, first)
    files = [read_file(path) for path in paths]
    _check_alike(paths, files)
    if len(files) == 1:
        return first
    for path, file in zip(paths, files, strict=True):
        if (file.axes or "z")[0] != "z":
            raise DataError(
                f"{path}: its axes are {file.axes_written}; in a folder of sections, each file is "
                "one section or a stack whose first axis is z. Save it so, or as a single file"
            )
    outer = (sum(file.outer[0] for file in files), *first.outer[1:])
    planes = tuple(plane for file in files for plane in file.planes)
    return replace(first, planes=planes, outer=outer)


def _of_one_image(folder: Path, paths: Sequence[Path], image: TifFile) -> TifFile:
    """An OME-TIFF of several files, in the order of its metadata."""
    named = {plane.file.absolute() for plane in image.planes}
    other = sorted(named ^ {path.absolute() for path in paths})
    if other:
        raise DataError(
            f"{folder}: {paths[0].name} has an OME-XML for {len(named)} files, and the folder has "
            f"{len(paths)}; {other[0].name} is only in one of the two. Put exactly the files of "
            "one image into the folder"
        )
    _check_same(paths, [str(read_pixels(path)) for path in paths])
    return image


def _check_alike(paths: Sequence[Path], files: Sequence[TifFile]) -> None:
    """DataError names a file whose pixels, or their meaning or size, differ from the others'."""
    _check_same(paths, [_kind(file) for file in files])
    _check_depths(paths, [file.outer[0] if file.outer else 1 for file in files])
    for path, file in zip(paths, files, strict=True):
        sizes, others = file.stated.voxel_sizes, files[0].stated.voxel_sizes
        if len(sizes) != len(others) or not all(map(_is_same_size, sizes, others)):
            raise DataError(
                f"{path} states {_written(sizes)}, {paths[0].name} states {_written(others)}; all "
                "sections must have the same pixels: scale the section, or correct the file"
            )


def _check_depths(paths: Sequence[Path], depths: Sequence[int]) -> None:
    """DataError unless all files have as many sections; the last one may have fewer."""
    usual = Counter(depths).most_common(1)[0][0]
    for number, (path, depth) in enumerate(zip(paths, depths, strict=True)):
        is_rest = number == len(depths) - 1 and depth < usual
        if depth != usual and not is_rest:
            raise DataError(
                f"{path} has {depth} sections, {depths.count(usual)} of {len(depths)} files in its "
                f"folder have {usual}; only the last file may have fewer. Cut or restore the file, "
                "or save all sections as one file"
            )


def _check_same(paths: Sequence[Path], kinds: Sequence[str]) -> None:
    """DataError names the first file that differs from most."""
    usual = Counter(kinds).most_common(1)[0][0]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != usual:
            raise DataError(
                f"{path} is {kind}, {kinds.count(usual)} of {len(kinds)} files in its folder are "
                f"{usual}; all sections must be alike: convert the file, or move it if it is none"
            )


def _kind(file: TifFile) -> str:
    """The pixels and axes of a file, but for the number of its sections."""
    inner = f", {file.axes} {list(file.outer[1:])}" if len(file.outer) > 1 else ""
    return f"{file.pixels}{inner}{' with 0 as white' if file.inverted else ''}"


def _is_same_size(one: Statement, other: Statement) -> bool:
    return all(
        a == b or (a is not None and b is not None and abs(a - b) <= SAME_PIXELS * b)
        for a, b in zip(one.values, other.values, strict=True)
    )


def _written(statements: Sequence[Statement]) -> str:
    return statements[0].written if statements else "no pixel size"


def _is_tif(path: Path) -> bool:
    """Whether a path is a tif, or a folder, which then contains one tif for each section."""
    return path.is_dir() or (path.exists() and path.suffix.lower() in TIF_SUFFIXES)


def _open(path: Path, array: str, mip: int, check: FileCheck | None) -> TifStack:
    """The image of a file or folder, which has no levels."""
    refuse_level(str(path), mip)
    return TifStack(path, check)


PAGE = FormatPage(
    title="Tif files and folders of tifs",
    recognised_by="The suffix .tif or .tiff, or a folder with one file for each section, or with "
    "stacks that are joined along z. Hidden files and other formats in it are left out.",
    axes="Those of ImageJ's description or OME-XML; plain pages are z. Files of a folder are in "
    "the order of the numbers in their names.",
    voxel_size="Stated by ImageJ, OME-XML, or the resolution tags (y and x, below 1 µm).",
    position="Stated by ImageJ's origin, and by OME-XML if the planes rise by the voxel size.",
    byte_order="Stated by the file.",
    channels="Stated by ImageJ and OME-XML. Colours of 8 bits in labels become ids.",
    codecs="Those of tifffile and imagecodecs: LZW, deflate, zstd, jpeg and others, with "
    "predictors, tiles and palettes; BigTIFF.",
    completeness="Truncated files and lost pages are refused. Strips that were never written are "
    "refused, unless `missing_chunks: fill`. Folders lack no number.",
    refused="Several times or images in one file; folders whose order is unclear, that lack a "
    "number, or whose files differ in shape, type, meaning of black or number of sections (the "
    "last file may have fewer).",
    conventions=(
        Convention(
            "ImageJ",
            (
                "unit",
                "yunit",
                "zunit",
                "spacing",
                "XResolution",
                "YResolution",
                "xorigin",
                "yorigin",
                "zorigin",
            ),
            "`unit`, and `yunit` and `zunit` where they differ; nothing is read without one",
            "`spacing` is the voxel size along z, one divided by the resolution that along y and x;"
            " the origin is the pixel at 0. Without `spacing`, `voxel_size_nm` has to state z. "
            "Pixels from 1 µm on, in inches or centimetres, are for printing and state nothing.",
        ),
        Convention(
            "OME-TIFF",
            ("PhysicalSizeX", "PhysicalSizeXUnit", "PositionX", "PositionXUnit"),
            "the unit of each; µm without it",
            "Voxel size, and the position of each plane; likewise for Y and Z. 1 without a unit, a "
            "number that is not above 0 and the units `pixel` and `reference frame` state nothing.",
        ),
        Convention(
            "resolution tags",
            ("XResolution", "YResolution", "ResolutionUnit"),
            "inch or centimetre",
            "The voxel size along y and x; from 1 µm on, they are for printing and state nothing.",
        ),
    ),
)
TIFF = Reader(
    "a tif stack",
    TIF_SUFFIXES,
    (PAGE,),
    _is_tif,
    _open,
)
