"""Arrays of h5 files and tif stacks, which read like zarr arrays: shape, dtype, attrs, slicing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

from retrace.errors import DataError, nearest
from retrace.formats.label_values import ColourLabels, from_colours, is_colour

TIF_SUFFIXES = (".tif", ".tiff")
H5_SUFFIXES = (".h5", ".hdf", ".hdf5")


class H5Array:
    """An h5 dataset. Each read opens the file, so that threads and processes can share it."""

    def __init__(self, path: Path, name: str) -> None:
        """DataError if the file has no dataset of that name."""
        self.path, self.name = path, name
        with h5py.File(path, "r") as file:
            if name not in file or not isinstance(file[name], h5py.Dataset):
                raise DataError(f"{path} has no array {name!r}; {nearest(name, _h5_names(file))}")
            self.shape: tuple[int, ...] = file[name].shape
            self.dtype: np.dtype[Any] = file[name].dtype
            self.attrs = {
                key: np.asarray(value).tolist() for key, value in file[name].attrs.items()
            }

    def __getitem__(self, key: Any) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][key])


class ReorderedArray:
    """An array with axes stored in any order, read as (Z, Y, X) or (C, Z, Y, X)."""

    def __init__(self, array: Any, axes: str, channel: int | None, name: str) -> None:
        """`axes`: letters of the stored axes, such as "xyz" or "cxyz"; `channel`: the one to read,
        None for all. DataError if the number of axes differs or there is no such channel."""
        if len(array.shape) != len(axes):
            raise DataError(
                f"{name} has {len(array.shape)} axes {tuple(array.shape)}, the config says "
                f"`axes: {axes}`; name each stored axis once"
            )
        self._array, self._axes, self._channel = array, axes, channel
        letters = "czyx" if "c" in axes and channel is None else "zyx"
        self._order = [axes.index(letter) for letter in letters]
        self.shape: tuple[int, ...] = tuple(array.shape[axis] for axis in self._order)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.attrs = dict(getattr(array, "attrs", {}))
        count = array.shape[axes.index("c")] if "c" in axes else 1
        if channel is not None and channel >= count:
            raise DataError(f"{name} has {count} channels, numbered from 0; there is no {channel}")

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        stored: list[Any] = [slice(None)] * len(self._axes)
        if self._channel is not None and "c" in self._axes:
            stored[self._axes.index("c")] = slice(self._channel, self._channel + 1)
        for axis, part in zip(self._order, key, strict=False):
            stored[axis] = part
        values = np.asarray(self._array[tuple(stored)])
        order = self._order + [a for a in range(len(self._axes)) if a not in self._order]
        values = values.transpose(order)
        return values[..., 0] if len(order) > len(self._order) else values


def _h5_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


class TifStack:
    """Sections (Z, Y, X) of a multi-page tif, or of a folder of tifs sorted by name.

    RGB pages become ids (label_values.from_colours).
    """

    def __init__(self, path: Path) -> None:
        """DataError for a folder without tifs, and for pages that are neither grey nor RGB."""
        self.path = path
        self.attrs: dict[str, Any] = {}
        self.pages = _tif_pages(path)
        first = self._page(0)
        if first.ndim != 2:
            raise DataError(
                f"{path}: a page has shape {first.shape}; pages must be grey (y, x), or for labels "
                "RGB (y, x, 3) of 8 bits"
            )
        self.shape: tuple[int, ...] = (len(self.pages), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype

    def _page(self, index: int) -> np.ndarray:
        file, key = self.pages[index]
        page = np.asarray(tifffile.imread(file, key=key))
        is_colour = page.ndim == 3 and page.shape[-1] in (3, 4) and page.dtype == np.uint8
        return from_colours(page) if is_colour else page

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        indices = range(len(self.pages))[key[0]]
        if isinstance(indices, int):
            return self._page(indices)[key[1:]]
        planes = [self._page(i)[key[1:]] for i in indices]
        return np.stack(planes) if planes else np.empty((0, *self.shape[1:]), self.dtype)


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


def open_hdf5_or_tiff(path: Path, name: str) -> H5Array | ColourLabels | TifStack:
    """The h5 dataset `name`, or a tif stack, by the path's suffix; DataError for other files."""
    if path.suffix.lower() in H5_SUFFIXES:
        array = H5Array(path, name)
        return ColourLabels(array) if is_colour(array.shape, array.dtype) else array
    if path.is_dir() or path.suffix.lower() in TIF_SUFFIXES:
        return TifStack(path)
    raise DataError(
        f"{path} is neither zarr, n5, h5 nor a tif stack; allowed suffixes: .zarr .n5 "
        f"{' '.join(H5_SUFFIXES + TIF_SUFFIXES)}"
    )
