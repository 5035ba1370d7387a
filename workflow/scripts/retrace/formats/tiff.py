"""Tif stacks, which read like zarr arrays: shape, dtype, attrs, slicing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.formats.contract import Description
from retrace.formats.label_values import from_colours
from retrace.formats.reader import Reader

TIF_SUFFIXES = (".tif", ".tiff")


class TifStack:
    """Sections (Z, Y, X) of a multi-page tif, or of a folder of tifs sorted by name.

    RGB pages become ids (label_values.from_colours).
    """

    def __init__(self, path: Path, check: FileCheck | None = None) -> None:
        """DataError for a folder without tifs, and for pages that are neither grey nor RGB."""
        self.path, self.check = path, check
        self.pages = _tif_pages(path)
        first = self._page(0)
        if first.ndim != 2:
            raise _wrong_pages(path, first.shape)
        self.shape: tuple[int, ...] = (len(self.pages), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        self.description = Description(self.shape, first.dtype.name)

    def _page(self, index: int) -> np.ndarray:
        file, key = self.pages[index]
        with tifffile.TiffFile(file) as tif:
            stored = tif.pages[key]
            if self.check is not None and 0 in stored.databytecounts:  # tifffile reads it as 0
                self.check(f"of page {key} in {file.name}", None)
            page = np.asarray(stored.asarray())
        is_colour = page.ndim == 3 and page.shape[-1] in (3, 4) and page.dtype == np.uint8
        return from_colours(page) if is_colour else page

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        indices = range(len(self.pages))[key[0]]
        if isinstance(indices, int):
            return self._page(indices)[key[1:]]
        planes = [self._page(i)[key[1:]] for i in indices]
        return np.stack(planes) if planes else np.empty((0, *self.shape[1:]), self.dtype)


def _wrong_pages(path: Path, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{path}: a page has shape {shape}; pages must be grey (y, x), or for labels RGB (y, x, 3) "
        "of 8 bits"
    )


def header(path: Path) -> Description | None:
    """What the files of a stack (Z, Y, X) say, without their data; None if not of numbers."""
    pages = _tif_pages(path)
    with tifffile.TiffFile(pages[0][0]) as tif:
        page = tif.pages[0]
        shape, dtype = tuple(page.shape), page.dtype
    if dtype is None:
        return None
    if len(shape) == 3 and shape[-1] in (3, 4) and dtype == np.uint8:
        shape, dtype = shape[:2], np.dtype(np.uint32)  # label_values.from_colours
    if len(shape) != 2:
        raise _wrong_pages(path, shape)
    return Description((len(pages), *shape), dtype.name)


def _tif_pages(path: Path) -> Sequence[tuple[Path, int]]:
    """The file and page number of each section."""
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in TIF_SUFFIXES)
    if not files:
        raise DataError(f"{path} contains no .tif or .tiff file")
    pages: list[tuple[Path, int]] = []
    for file in files:
        with tifffile.TiffFile(file) as tif:
            pages += [(file, index) for index in range(len(tif.pages))]
    return pages


def _is_tif(path: Path) -> bool:
    """Whether a path is a tif, or a folder, which then contains one tif for each section."""
    return path.is_dir() or (path.exists() and path.suffix.lower() in TIF_SUFFIXES)


TIFF = Reader(
    "a tif stack", TIF_SUFFIXES, _is_tif, lambda path, name, mip, check: TifStack(path, check)
)
