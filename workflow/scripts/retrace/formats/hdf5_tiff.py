"""Arrays from h5 files and tif stacks, seen like a zarr array: shape, dtype, slicing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

from retrace.errors import DataError, nearest
from retrace.formats.label_values import Colours, from_colours, is_colour

TIF_SUFFIXES = (".tif", ".tiff")
H5_SUFFIXES = (".h5", ".hdf", ".hdf5")


class H5Array:
    """One h5 dataset, opened for each read so that threads and processes can share it."""

    def __init__(self, path: Path, name: str) -> None:
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


class Reordered:
    """An array whose axes are stored in another order, seen as (Z, Y, X) or (C, Z, Y, X)."""

    def __init__(self, array: Any, axes: str, channel: int | None, name: str) -> None:
        """`axes`: letters of the stored axes, such as "xyz" or "cxyz"; `channel`: the one that is
        taken, None for all. DataError where the array has other axes, or not that channel."""
        if len(array.shape) != len(axes):
            raise DataError(
                f"{name} has {len(array.shape)} axes {tuple(array.shape)}, the config says "
                f"`axes: {axes}`; name each stored axis once"
            )
        self._array, self._axes, self._channel = array, axes, channel
        wanted = "czyx" if "c" in axes and channel is None else "zyx"
        self._order = [axes.index(letter) for letter in wanted]
        self.shape: tuple[int, ...] = tuple(array.shape[axis] for axis in self._order)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.attrs = dict(getattr(array, "attrs", {}))
        count = array.shape[axes.index("c")] if "c" in axes else 1
        if channel is not None and channel >= count:
            raise DataError(f"{name} has {count} channels, and channel {channel} is asked for")

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        stored: list[Any] = [slice(None)] * len(self._axes)
        if self._channel is not None and "c" in self._axes:
            at = self._axes.index("c")
            stored[at] = slice(self._channel, self._channel + 1)
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
    """Sections (Z, Y, X) from one multi-page tif or a folder of tifs in name order.

    Colours become numbers (see `objects.from_colours`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attrs: dict[str, Any] = {}
        self.pages = _tif_pages(path)
        first = self._page(0)
        if first.ndim != 2:
            raise DataError(
                f"{path}: a page has shape {first.shape}; only grey (y, x) pages work, and colours "
                "(y, x, 3) of 8 bits as labels"
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
        chosen = range(len(self.pages))[key[0]]
        if isinstance(chosen, int):
            return self._page(chosen)[key[1:]]
        planes = [self._page(i)[key[1:]] for i in chosen]
        return np.stack(planes) if planes else np.empty((0, *self.shape[1:]), self.dtype)


def _tif_pages(path: Path) -> Sequence[tuple[Path, int]]:
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in TIF_SUFFIXES)
    if not files:
        raise DataError(f"{path} holds no .tif or .tiff file")
    pages: list[tuple[Path, int]] = []
    for file in files:
        with tifffile.TiffFile(file) as tif:
            pages += [(file, index) for index in range(len(tif.pages))]
    return pages


def open_stack(path: Path, array: str) -> H5Array | Colours | TifStack:
    """An h5 dataset or a tif stack by the path's suffix; DataError for other files."""
    if path.suffix.lower() in H5_SUFFIXES:
        found = H5Array(path, array)
        return Colours(found) if is_colour(found.shape, found.dtype) else found
    if path.is_dir() or path.suffix.lower() in TIF_SUFFIXES:
        return TifStack(path)
    raise DataError(
        f"{path} is neither zarr, n5, h5 nor a tif stack; known suffixes: .zarr .n5 "
        f"{' '.join(H5_SUFFIXES + TIF_SUFFIXES)}"
    )
