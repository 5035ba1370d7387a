"""Datasets of h5 files, which read like zarr arrays: shape, dtype, attrs, slicing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retrace.errors import DataError, nearest
from retrace.files import FileCheck
from retrace.formats.label_values import ColourLabels, is_colour
from retrace.formats.reader import Reader

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


def _h5_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _is_h5(path: Path) -> bool:
    return path.exists() and path.suffix.lower() in H5_SUFFIXES


def _open(path: Path, name: str, mip: int, check: FileCheck | None) -> H5Array | ColourLabels:
    """The dataset `name` (Z, Y, X) or (C, Z, Y, X); colours become ids."""
    array = H5Array(path, name)
    return ColourLabels(array) if is_colour(array.shape, array.dtype) else array


HDF5 = Reader("h5", H5_SUFFIXES, _is_h5, _open)
