"""One tif file: which of its pages are the planes of its image, and what its axes are.

Pages alone do not say it: ImageJ may describe a whole stack by one page, planes may be channels,
and a page may be a thumbnail. tifffile's series know the conventions; this module compares them
with the pages that are in the file, because tifffile reads lost planes as 0 or leaves them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tifffile

from retrace.errors import DataError
from retrace.formats.contract import ByteOrder
from retrace.formats.tiff_metadata import (
    Stated,
    check_ome_sizes,
    ome_files,
    ome_pixels,
    ome_root,
    stated,
)
from retrace.formats.tiff_pages import (
    SAVE_AGAIN,
    Pixels,
    Plane,
    common_pixels,
    image_pages,
    is_inverted,
)
from retrace.reading import reading_content


@dataclass(frozen=True)
class TifFile:
    """The image of one file: planes of all axes before those of a page, the last axis fastest."""

    planes: tuple[Plane, ...]
    outer: tuple[int, ...]
    """Lengths of the axes of the planes."""
    axes: str | None
    """A letter for each axis, planes first; None where the file does not name them."""
    axes_written: str
    pixels: Pixels
    inverted: bool
    byte_order: ByteOrder
    stated: Stated
    is_multifile: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the order of the axes."""
        return (*self.outer, *self.pixels.shape)


def read_file(path: Path) -> TifFile:
    """The image of a file, without its data; DataError if it is damaged, incomplete or unclear."""
    file: TifFile = _read_version(path, _version(path), _image)
    return file


def read_pixels(path: Path) -> Pixels:
    """What the pages of a file have in common, without what its metadata say of other files."""
    pixels: Pixels = _read_version(path, _version(path), _only_pixels)
    return pixels


def _only_pixels(path: Path, tif: tifffile.TiffFile) -> Pixels:
    return common_pixels(image_pages(tif))


def _version(path: Path) -> tuple[int, ...]:
    """Numbers that change with a file's content."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1 << 14)
def _read_version(path: Path, version: tuple[int, ...], read: Callable[..., Any]) -> Any:
    """The value of `read`; remembered, because planning and jobs open the same files repeatedly."""
    with reading_content(path, SAVE_AGAIN), tifffile.TiffFile(path) as tif:
        try:
            return read(path, tif)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _Layout:
    """The planes of an image and the names of their axes."""

    planes: tuple[Plane, ...]
    outer: tuple[int, ...]
    letters: str
    """Letters of tifffile (T, Z, C, S, I, Q …), one for each of `outer`."""
    convention: str
    """What states the axes; empty if nothing does."""


def _image(path: Path, tif: tifffile.TiffFile) -> TifFile:
    """The image of an open file."""
    pages = image_pages(tif)
    check_ome_sizes(tif)
    layout = _layout(path, tif, pages)
    pixels = common_pixels(pages)
    outer, axes = _named(layout, pixels)
    written = ""
    if axes is not None or not set(layout.letters) <= set("IQTZC"):
        letters = (axes or layout.letters + pixels.axes).upper()
        sizes = _sizes(letters, (*outer, *pixels.shape))
        written = f"{sizes} by {layout.convention or 'its pages'}"
    order: ByteOrder = "big" if tif.byteorder == ">" else "little"
    return TifFile(
        layout.planes,
        outer,
        axes,
        written,
        pixels,
        is_inverted(pages[0]),
        order if pixels.dtype.itemsize > 1 else "none",
        stated(tif),
        any(plane.file != path for plane in layout.planes),
    )


def _named(layout: _Layout, pixels: Pixels) -> tuple[tuple[int, ...], str | None]:
    """Lengths of the axes of the planes, and a letter for each axis of the image.

    No letters where the file does not name the axes: planes are sections then.
    """
    letters, outer = layout.letters.lower(), layout.outer
    if not letters or set(letters) <= set("tc"):
        letters, outer = f"z{letters}", (1, *outer)
    if letters in UNNAMED:
        return outer, None if pixels.axes == "yx" else f"z{pixels.axes}"
    axes = letters + pixels.axes
    is_named = set(letters) <= set("tzc") and len(set(axes)) == len(axes)
    return outer, axes if is_named else None


UNNAMED = ("i", "q")
"""Letters of tifffile for the only axis of planes whose meaning is not stated."""


CONVENTIONS = {"imagej": "ImageJ", "ome": "OME-XML", "shaped": "tifffile"}
PLAIN = ("generic", "uniform")
"""Kinds of series without metadata: the planes are the pages."""


def _layout(path: Path, tif: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage]) -> _Layout:
    """Which pages are the planes; DataError if metadata contradict the pages."""
    series = [s for s in tif.series if not (s.keyframe.is_reduced or s.keyframe.is_mask)]
    is_plain = all(s.kind in PLAIN for s in series)
    if is_plain:
        _check_metadata(tif, pages)
    if is_plain or (len(series) > 1 and all(_is_written_singly(s) for s in series)):
        common_pixels(pages)
        return _Layout(_of_pages(path, pages), (len(pages),), "I", "")
    if len(series) > 1:
        names = ", ".join(f"{s.name or number} {list(s.shape)}" for number, s in enumerate(series))
        raise DataError(
            f"it contains {len(series)} images ({names}); save the one to read as a file of its own"
        )
    return _of_series(path, tif, series[0], pages)


def _is_written_singly(series: tifffile.TiffPageSeries) -> bool:
    """Whether a series is one page: tifffile begins a new one with each call that writes a page."""
    is_page = math.prod(series.shape) == math.prod(series.keyframe.shape)
    return bool(series.kind == "shaped" and is_page)


def _of_pages(path: Path, pages: Sequence[tifffile.TiffPage]) -> tuple[Plane, ...]:
    return tuple(Plane(path, page.offset, page.index) for page in pages)


def _check_metadata(tif: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage]) -> None:
    """DataError if the file has metadata, whose image tifffile does not find in it."""
    found = f"the file has {len(pages)} pages of shape {list(pages[0].shape)}"
    if tif.is_ome and (pixels := ome_pixels(tif)) is not None:
        sizes = ", ".join(f"Size{axis} {pixels.get(f'Size{axis}')}" for axis in "TCZYX")
        raise DataError(f"its OME-XML states {sizes}, and {found}; {SAVE_AGAIN}")
    if tif.is_ome:
        raise DataError(f"its OME-XML is in {ome_root(tif)}; save all of the image as one tif")
    if tif.is_imagej:
        meta = tif.imagej_metadata or {}
        stated_sizes = {key: size for key, size in meta.items() if key in IMAGEJ_SIZES}
        raise DataError(
            f"ImageJ's description states {stated_sizes}, and {found}: it is truncated or was "
            f"changed; {SAVE_AGAIN}"
        )
    if tif.is_shaped:
        text = tif.pages.first.shaped_description
        raise DataError(f"its description {text:.100} contradicts that {found}; {SAVE_AGAIN}")


IMAGEJ_SIZES = ("images", "slices", "channels", "frames")


def _of_series(
    path: Path,
    tif: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    pages: Sequence[tifffile.TiffPage],
) -> _Layout:
    """The planes of a series; DataError unless each of them is in the file."""
    count = series.keyframe.ndim
    shape, letters = series.get_shape(squeeze=True), series.get_axes(squeeze=True)
    if shape[-count:] != series.keyframe.shape:
        raise DataError(
            f"its axes {_sizes(letters, shape)} do not end in those of its pages "
            f"{list(series.keyframe.shape)}; {SAVE_AGAIN}"
        )
    outer, letters = shape[:-count], letters[:-count]
    if series.kind == "imagej":
        outer, letters = _of_imagej(tif, outer, letters)
    convention = CONVENTIONS.get(series.kind, series.kind)
    expected = math.prod(outer)
    planes = _planes(path, series, pages, expected)
    present = tuple(plane for plane in planes if plane is not None)
    states = f"states {expected} planes" + (f" ({_sizes(letters, outer)})" if letters else "")
    if series.kind == "shaped":
        expected = _planes_of_tifffile(tif, pages[0])
        states = f"states {tif.pages.first.shaped_description:.100}"
    if not len(present) == len(planes) == expected == math.prod(outer):
        raise DataError(
            f"{convention} {states}, and the file has {len(present)} of them on {len(planes)} "
            f"pages: {_cause(path, tif)}; {SAVE_AGAIN}"
        )
    return _Layout(present, outer, letters, convention)


def _planes_of_tifffile(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """The number of planes in tifffile's description; its series leaves out those that are lost."""
    (stated_shape, *_) = (content["shape"] for content in tif.shaped_metadata or ())
    return math.prod(stated_shape) // math.prod(page.shape)


def _cause(path: Path, tif: tifffile.TiffFile) -> str:
    """Why planes are missing."""
    lacking = [name for name in ome_files(tif) if not (path.parent / name).is_file()]
    if lacking:
        return f"there is no {lacking[0]} next to it ({len(lacking)} files are missing)"
    return "it is truncated, or pages were removed or added"


def _of_imagej(
    tif: tifffile.TiffFile, outer: tuple[int, ...], letters: str
) -> tuple[tuple[int, ...], str]:
    """Axes of ImageJ's planes.

    Channels of grey values without sections are sections: many programs write a stack so. ImageJ
    shows real channels as colours or as a composite.
    """
    meta = tif.imagej_metadata or {}
    images = meta.get("images")
    if letters in ("", "I") and isinstance(images, int) and images > 1:
        return (images,), "I"
    if letters == "C" and meta.get("mode", "grayscale") == "grayscale":
        return outer, "I"
    return outer, letters


def _planes(
    path: Path,
    series: tifffile.TiffPageSeries,
    pages: Sequence[tifffile.TiffPage],
    count: int,
) -> Sequence[Plane | None]:
    """The planes of a series in their order, None for each that is not in the file."""
    page = pages[0]
    is_by_page = series.kind in ("imagej", "shaped")
    if len(pages) == 1 and count > 1 and page.is_final and (is_by_page or series.is_truncated):
        size = page.parent.filehandle.size
        present = min(count, (size - page.dataoffsets[0]) // page.nbytes)
        return [Plane(path, page.offset, page.index, part) for part in range(present)]
    if is_by_page:
        return _of_pages(path, pages)
    planes = [p and Plane(_file_of(path, p), p.offset, p.index) for p in series]
    surplus = 0 if series.is_multifile else max(0, len(pages) - len(planes))
    return planes + [None] * surplus


def _file_of(path: Path, page: tifffile.TiffPage | tifffile.TiffFrame) -> Path:
    """The file of a page; `path` is the one that was opened."""
    other = Path(page.parent.filehandle.path)
    return path if other == Path(path).absolute() else other


def _sizes(letters: str, sizes: Sequence[int]) -> str:
    return ", ".join(f"{letter} {size}" for letter, size in zip(letters, sizes, strict=True))
