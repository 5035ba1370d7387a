"""Pages of a tif: which ones hold image data, what they have in common, and their values."""

from __future__ import annotations

import logging
import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.limits import IMAGE_BYTES
from retrace.reading import reading_content

# Faults that matter become errors here; tifffile only logs them, and reads on.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

SAVE_AGAIN = "copy the file again, or save it again with the program that wrote it"
COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


@dataclass(frozen=True)
class Plane:
    """A plane of an image: the page at `directory`, or of its data the part number `part`."""

    file: Path
    directory: int
    """Offset of the page's directory (IFD) in the file."""
    number: int
    """The page's number in the file, for messages."""
    part: int | None = None
    """For a page that describes a whole stack; None: the plane is the page."""


@dataclass(frozen=True)
class Pixels:
    """What all pages of an image have in common."""

    shape: tuple[int, ...]
    """(Y, X), (Y, X, C) or (C, Y, X)."""
    axes: str
    """Letters of y, x and c, in the stored order."""
    dtype: np.dtype[Any]
    """In the byte order of this machine."""
    photometric: str

    def __str__(self) -> str:
        return f"{list(self.shape)} {self.dtype.name} {self.photometric}"

    @property
    def is_colour(self) -> bool:
        """Whether the samples are red, green and blue of 8 bits."""
        is_rgb = self.photometric in [member.name for member in COLOURS]
        return is_rgb and "c" in self.axes and self.dtype == np.uint8


def image_pages(tif: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages of a file, without thumbnails and masks."""
    pages = []
    for number, offset in enumerate(_directories(tif)):
        tif.filehandle.seek(offset)
        page = tifffile.TiffPage(tif, number)
        if not (page.is_reduced or page.is_mask):
            _check_data(tif, page, number)
            pages.append(page)
    if not pages:
        raise DataError(f"it has no image; {SAVE_AGAIN}")
    return pages


def _directories(tif: tifffile.TiffFile) -> list[int]:
    """The offset of each page's directory; DataError if the chain of pages leaves the file.

    tifffile ends the list there, and leaves out tags whose values are lost.
    """
    file, layout = tif.filehandle, tif.tiff
    offsets: dict[int, None] = {}
    unread = SHARED_BY * file.size
    offset = tif.pages.first.offset
    while offset:
        if offset in offsets or offset >= file.size:
            raise DataError(f"it is truncated or damaged after {len(offsets)} pages; {SAVE_AGAIN}")
        offsets[offset] = None
        file.seek(offset)
        (count,) = struct.unpack(layout.tagnoformat, _bytes(tif, layout.tagnosize))
        directory = _bytes(tif, count * layout.tagsize)
        unread -= len(directory) + _check_tags(tif, directory)
        if unread < 0:
            raise DataError(f"{len(offsets)} of its pages share their bytes; {SAVE_AGAIN}")
        (offset,) = struct.unpack(layout.offsetformat, _bytes(tif, layout.offsetsize))
    return list(offsets)


def _check_tags(tif: tifffile.TiffFile, directory: bytes) -> int:
    """Bytes of the values of the tags; DataError if the file ends before one of them."""
    entry = struct.Struct(f"{tif.byteorder}{'HHQQ' if tif.is_bigtiff else 'HHII'}")
    if entry.size != tif.tiff.tagsize:
        return 0
    total = 0
    for tag, kind, count, where in entry.iter_unpack(directory):
        size = BYTES_OF_TYPE.get(kind, 0) * count
        if size > tif.tiff.offsetsize and where + size > tif.filehandle.size:
            raise DataError(f"it ends before the value of tag {tag}; {SAVE_AGAIN}")
        total += size if size > tif.tiff.offsetsize else 0
    return total


SHARED_BY = 4
"""How often tags may refer to each byte of a file, on average: pages may share small values."""
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8} | {
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value, by its type in the directory (TIFF 6.0 and BigTIFF)."""


def _bytes(tif: tifffile.TiffFile, count: int) -> bytes:
    content: bytes = tif.filehandle.read(count)
    if len(content) < count:
        raise DataError(f"it is truncated; {SAVE_AGAIN}")
    return content


def _check_data(tif: tifffile.TiffFile, page: tifffile.TiffPage, number: int) -> None:
    """DataError if the file ends before the data of a page, or they are too few for its shape."""
    if page.dtype is None or not page.shape or len(page.dataoffsets) != len(page.databytecounts):
        raise DataError(f"page {number} is damaged or not of numbers; {SAVE_AGAIN}")
    if page.nbytes > IMAGE_BYTES:
        raise DataError(
            f"page {number} states {list(page.shape)} {page.dtype}, {page.nbytes} bytes; images "
            f"of up to {IMAGE_BYTES} bytes are read. {SAVE_AGAIN}, or cut it into tiles of a zarr"
        )
    ends = (a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > tif.filehandle.size and not _is_one_block(tif, page):
        raise DataError(f"it ends before the data of page {number}; {SAVE_AGAIN}")
    if len(page.dataoffsets) < math.prod(page.chunked):
        raise DataError(f"page {number} lacks strips or tiles; {SAVE_AGAIN}")


def _is_one_block(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> bool:
    """Whether the plain data of a page are in the file, whatever the number of bytes it states.

    ImageJ states 32 bits of it for stacks above 4 GB.
    """
    is_plain = page.is_final and len(page.dataoffsets) == 1
    return bool(is_plain and page.dataoffsets[0] + page.nbytes <= tif.filehandle.size)


def _pixels(page: tifffile.TiffPage) -> Pixels:
    letters = page.axes.replace("S", "c").lower()
    photometric = getattr(page.photometric, "name", str(page.photometric))
    return Pixels(tuple(page.shape), letters, np.dtype(page.dtype).newbyteorder("="), photometric)


def common_pixels(pages: Sequence[tifffile.TiffPage]) -> Pixels:
    """What all pages have; DataError names the first page that differs from most."""
    found = [_pixels(page) for page in pages]
    usual = Counter(found).most_common(1)[0][0]
    if sorted(usual.axes.replace("c", "")) != ["x", "y"]:
        raise DataError(f"a page has the axes {usual.axes}; pages must be grey (y, x) or colours")
    for page, pixels in zip(pages, found, strict=True):
        if pixels != usual:
            raise DataError(
                f"page {page.index} is {pixels}, {found.count(usual)} of {len(found)} pages are "
                f"{usual}; all pages must be alike: remove the page, or convert it"
            )
    return usual


def is_inverted(page: tifffile.TiffPage) -> bool:
    """Whether 0 is white: by MinIsWhite, or by a palette of greys that fall.

    DataError for greys in disorder: the stored numbers are neither grey values nor ids then.
    """
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return True
    palette = page.colormap
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or palette is None:
        return False
    if not (palette == palette[0]).all():
        return False
    greys = palette[0].astype(np.int64)
    is_rising = bool((np.diff(np.trim_zeros(greys, "b")) >= 0).all())  # 0 follows the used ones
    is_falling = bool((np.diff(greys) <= 0).all())
    if not (is_rising or is_falling):
        raise DataError("its palette of greys is in disorder; save it as grey without a palette")
    return is_falling and bool((greys != greys[0]).any())


def read_plane(plane: Plane, pixels: Pixels, check: FileCheck | None) -> np.ndarray:
    """The values of a plane, in the shape and type of `pixels`.

    `check` is called where strips or tiles were never written, which tifffile reads as 0.
    """
    with reading_content(plane.file, SAVE_AGAIN), tifffile.TiffFile(plane.file) as tif:
        tif.filehandle.seek(plane.directory)
        page = tifffile.TiffPage(tif, 0)
        if check is not None and 0 in page.databytecounts:
            check(f"of page {plane.number} in {plane.file.name}", None)
        values = page.asarray() if plane.part is None else _part(tif, page, plane.part)
        return np.asarray(values, pixels.dtype).reshape(pixels.shape)


def _part(tif: tifffile.TiffFile, page: tifffile.TiffPage, part: int) -> np.ndarray:
    """Plane number `part` of a page whose plain data are those of a whole stack."""
    tif.filehandle.seek(page.dataoffsets[0] + part * page.nbytes)
    dtype = np.dtype(page.dtype).newbyteorder(tif.byteorder)
    return np.frombuffer(_bytes(tif, page.nbytes), dtype)
