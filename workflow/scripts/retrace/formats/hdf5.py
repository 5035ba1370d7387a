"""Datasets of h5 files, which read like zarr arrays: shape, dtype, attrs, slicing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retrace.errors import DataError, nearest
from retrace.files import FileCheck
from retrace.formats.attributes import CONVENTIONS, IN_ATTRIBUTES
from retrace.formats.contract import Description, FormatPage, Group, byte_order_of
from retrace.formats.folder_kinds import H5_SUFFIXES
from retrace.formats.h5_files import refuse_external_links, refuse_other_files
from retrace.formats.reader import Reader, refuse_large_chunk, refuse_level
from retrace.formats.stated_axes import AXES_CONVENTIONS, agreed_axes, axes_in_attributes
from retrace.formats.stated_places import GROUP_CONVENTION
from retrace.geometry import chunk_count

OF_GROUP = frozenset(key for each in (*CONVENTIONS, GROUP_CONVENTION) for key in each.keys)
"""Attributes of groups that are read; all others may be of types that Python does not know."""
OF_ARRAY = OF_GROUP | {key for each in AXES_CONVENTIONS for key in each.keys}


class H5Array:
    """An h5 dataset. Each read opens the file, so that threads and processes can share it."""

    def __init__(self, path: Path, name: str, check: FileCheck | None = None) -> None:
        """DataError if the file has no dataset of that name, or its values are in other files."""
        self.path, self.name = path, name
        with h5py.File(path, "r") as file:
            refuse_external_links(path, file, name)
            dataset = file.get(name)  # None also for a link to nothing
            if not isinstance(dataset, h5py.Dataset):
                raise DataError(f"{path} has no array {name!r}; {nearest(name, _h5_names(file))}")
            if dataset.shape is None:
                raise DataError(f"{name!r} in {path} has no values; correct `array`")
            self.shape: tuple[int, ...] = dataset.shape
            self.dtype: np.dtype[Any] = dataset.dtype
            _refuse_link(path, name, file, dataset)
            refuse_other_files(path, dataset)
            refuse_large_chunk(f"{name!r} in {path}", dataset.chunks or (), dataset.dtype.itemsize)
            self.description = _description(dataset)
            if check is not None and (absent := _absent_chunks(dataset)):
                check(f"of {name!r} ({absent})", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][key])


def _description(dataset: h5py.Dataset) -> Description:
    """What the file says about a dataset."""
    attributes = _attributes(dataset, OF_ARRAY)
    try:
        letters, written = agreed_axes(dataset.shape, list(axes_in_attributes(attributes)))
    except DataError as error:
        raise DataError(f"{dataset.name!r} in {dataset.file.filename}: {error}") from error
    return Description(
        dataset.shape,
        dataset.dtype.name,
        byte_order_of(dataset.dtype),
        letters,
        written,
        attributes,
        completeness="every chunk is listed",
        is_colour=letters is None and _is_colour(dataset),
        groups=tuple(_groups(dataset)),
        level=dataset.name.rpartition("/")[2],
    )


@dataclass(frozen=True)
class UnreadValue:
    """The value of an attribute that h5py cannot read; refused by its name where it is needed."""

    reason: str


def _attributes(node: h5py.Group | h5py.Dataset, keys: Iterable[str]) -> dict[str, Any]:
    return {key: _attribute(node, key) for key in keys if key in node.attrs}


def _attribute(node: h5py.Group | h5py.Dataset, key: str) -> Any:
    try:
        return _plain(node.attrs[key])
    except TypeError as error:
        return UnreadValue(str(error))


def _groups(dataset: h5py.Dataset) -> Iterator[Group]:
    """The groups above a dataset, the nearest first."""
    path = dataset.name
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield Group(path, _attributes(dataset.file[path], OF_GROUP))


def _is_colour(dataset: h5py.Dataset) -> bool:
    """Whether it is RGB: 8 bits, with red, green and blue in the last of four axes."""
    return dataset.ndim == 4 and dataset.shape[-1] == 3 and dataset.dtype == np.uint8


def _plain(value: Any) -> Any:
    """An attribute as Python values; numbers of 32 bits as their decimals, 4.6 and not 4.59999.

    An empty attribute is None, which counts as an absent one.
    """
    if isinstance(value, h5py.Empty):
        return None
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = np.array([float(str(number)) for number in array.ravel()]).reshape(array.shape)
    if array.dtype.kind in "SO":
        items = [_text(item) for item in array.ravel()]
        return items[0] if array.ndim == 0 else items
    return array.tolist()


def _text(item: Any) -> Any:
    """A text, or a list of the values of an item of variable length."""
    if isinstance(item, np.ndarray):
        return item.tolist()
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else item


def _refuse_link(path: Path, name: str, file: h5py.File, dataset: h5py.Dataset) -> None:
    """DataError for a dataset of another file, which a link of a link may name."""
    outside = dataset.file.filename
    if outside != file.filename:
        raise DataError(
            f"{name!r} in {path} is a link to {dataset.name!r} in {outside}; name that file as "
            "`path` and that dataset as `array`"
        )


def _absent_chunks(dataset: h5py.Dataset) -> str:
    """How many chunks were never written, as text; empty if all were."""
    if dataset.size == 0:
        return ""
    if dataset.chunks is None:  # one block of bytes
        return "" if dataset.id.get_storage_size() else "1 of 1 chunks"
    expected = chunk_count(dataset.shape, dataset.chunks)
    absent = expected - dataset.id.get_num_chunks()
    return f"{absent} of {expected} chunks" if absent else ""


def _h5_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _is_h5(path: Path) -> bool:
    return path.exists() and path.suffix.lower() in H5_SUFFIXES


def _open(path: Path, array: str, mip: int, check: FileCheck | None) -> H5Array:
    """The dataset `array`."""
    refuse_level(f"{path}/{array}", mip)
    return H5Array(path, array, check)


PAGE = FormatPage(
    title="HDF5",
    recognised_by="The suffix .h5, .hdf or .hdf5; `array` names the dataset. CREMI and the h5 files"
    " of ilastik and PlantSeg are such files.",
    axes=IN_ATTRIBUTES,
    voxel_size=IN_ATTRIBUTES,
    position=IN_ATTRIBUTES,
    byte_order="Stated by the type.",
    channels="An axis c; without names, the first of four axes. Colours of labels, (z, y, x) with a"
    " last axis of 3 or 4 uint8, become one id for each colour.",
    codecs="Those of the installed HDF5 library: gzip, lzf, szip, and plugins that it finds.",
    completeness="Chunks that were never written are refused, unless `missing_chunks: fill`. "
    "A damaged chunk is noticed by its codec, or by the checksum `fletcher32` if the file has it.",
    refused="Links to other files, virtual and external datasets. The voxel size of BigDataViewer's"
    " h5 files is in an .xml file, which is not read. Imaris files (.ims) are not read.",
)
HDF5 = Reader("h5", H5_SUFFIXES, (PAGE,), _is_h5, _open)
