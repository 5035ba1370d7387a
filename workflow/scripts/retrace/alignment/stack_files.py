"""Training stacks: N samples of S consecutive sections, read one at a time from h5 or zarr.

A file contains named data sets. A data set is a group NAME with `images` (N, S, H, W) uint8 and
optionally `masks` (N, S, H, W) uint8, labels of retrace.targets.ternary, and `fields`
(N, S, 2, H, W) float32, the known displacements. An array (N, S, H, W) at the top level, as in
archives of SEAMLeSS, is a data set of images only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retrace.errors import DataError
from retrace.formats.folder_kinds import H5_SUFFIXES
from retrace.formats.h5_files import opened_h5
from retrace.formats.hdf5 import H5Array
from retrace.reading import reading_content, retried
from retrace.storage.manifest import input_digest
from retrace.storage.volumes import open_group

IMAGES, MASKS, FIELDS = "images", "masks", "fields"
ARRAYS = (IMAGES, MASKS, FIELDS)


@dataclass(frozen=True)
class StackPaths:
    """Files of stacks, and the files of their masks where they hold none."""

    stacks: Sequence[Path]
    masks: Sequence[Path] = ()

    @cached_property
    def digests(self) -> list[str]:
        """Digests of all files."""
        return [input_digest(path) for path in (*self.stacks, *self.masks)]


@dataclass(frozen=True)
class Stack:
    """One sample: S consecutive sections.

    `images` (S, H, W) float32 in [0, 1], 0 where nothing was imaged. `masks` (S, H, W) uint8: 0
    clean, 1 near a defect, 2 inside one. `fields` (S, 2, H, W) float32 px (dy, dx): what section z
    shows at p is at `p + fields[z](p)` in the undistorted section; None if unknown.
    """

    name: str
    images: Tensor
    masks: Tensor
    fields: Tensor | None = None
    mip: int = 0


@dataclass(frozen=True)
class StoredStacks:
    """One data set of a file: the paths of its arrays in the file, and the shape of `images`."""

    path: Path
    name: str
    arrays: dict[str, str]
    shape: tuple[int, ...]
    mip: int = 0

    def read(self, array: str, index: int) -> np.ndarray | None:
        """Sample `index` of an array; None if the data set has no array of that name.

        The file is opened for each read, so that workers share no handle.
        """
        where = self.arrays.get(array)
        if where is None:
            return None
        with reading_content(self.path, "make the stacks again"):
            values = retried(lambda: np.asarray(open_array(self.path, where)[index]), self.path)
            return values.astype(values.dtype.newbyteorder("="), copy=False)


def is_h5(path: Path) -> bool:
    """Whether a file name has a suffix of h5; other files are read as zarr."""
    return path.suffix.lower() in H5_SUFFIXES


def open_array(path: Path, name: str) -> Any:
    """One array of an h5 file or zarr store, read-only."""
    if is_h5(path):
        return H5Array(path, name)
    return open_group(path)[name]


@contextmanager
def open_stack_file(path: Path) -> Iterator[Any]:
    """The root group of an h5 file or zarr store, read-only; DataError if it is neither."""
    if not path.exists():
        raise DataError(f"{path} does not exist; make it with the target stacks_DATASET")
    with reading_content(path, "name an h5 file or zarr group of stacks, or make it again"):
        if is_h5(path):
            with opened_h5(path) as root:
                yield root
        else:
            yield open_group(path)


def stack_sets(path: Path) -> list[StoredStacks]:
    """The data sets of a file, sorted by name.

    DataError if the file is absent or unreadable, has no data set, or arrays whose shapes disagree.
    """
    with open_stack_file(path) as root:
        items = [_stack_set(path, name, root[name]) for name in sorted(root.keys())]
    sets = [item for item in items if item is not None]
    if not sets:
        raise DataError(
            f"{path} holds no stacks: neither a group with an array {IMAGES!r} (N, S, H, W) nor an "
            "array of that shape"
        )
    return sets


def _stack_set(path: Path, name: str, item: Any) -> StoredStacks | None:
    """The data set of that name; None if the item is none."""
    mip = int(item.attrs.get("mip", 0))
    if hasattr(item, "shape"):
        if len(item.shape) != 4:
            return None
        return _checked(StoredStacks(path, name, {IMAGES: name}, tuple(item.shape), mip), {})
    shapes = {a: tuple(item[a].shape) for a in ARRAYS if a in item}
    if IMAGES not in shapes:
        return None
    arrays = {array: f"{name}/{array}" for array in shapes}
    return _checked(StoredStacks(path, name, arrays, shapes[IMAGES], mip), shapes)


def _checked(stacks: StoredStacks, shapes: Mapping[str, tuple[int, ...]]) -> StoredStacks:
    """The data set, if its arrays agree; `shapes`: those of its arrays. DataError otherwise."""
    samples, sections, *side = stacks.shape
    label = f"{stacks.path}: data set {stacks.name!r}"
    if len(side) != 2 or 0 in stacks.shape:
        raise DataError(f"{label} has shape {stacks.shape}; (N, S, H, W) without 0 is needed")
    if sections < 2:
        raise DataError(
            f"{label} has stacks of {sections} section; a pair needs 2. Set `height` to 2 or more"
        )
    check_mask_shape(label, stacks.shape, shapes.get(MASKS))
    if shapes.get(FIELDS) not in (None, (samples, sections, 2, *side)):
        raise DataError(f"{label}: fields have shape {shapes[FIELDS]}, images {stacks.shape}")
    return stacks


def check_mask_shape(label: str, images: tuple[int, ...], masks: tuple[int, ...] | None) -> None:
    """DataError for masks that differ in shape from their images."""
    if masks is not None and masks != images:
        raise DataError(
            f"{label}: masks have shape {masks}, images {images}; make the masks of these stacks"
        )


class StackDataset(Dataset[Stack]):
    """The samples of several files, one data set after the other, read on access.

    No file stays open, so that any number of workers can share it.
    """

    def __init__(self, paths: Sequence[Path], masks: Sequence[Path] = ()) -> None:
        """`masks`: files whose data sets have the same names and contain `masks` for the images.

        DataError for masks of another shape than their images, or without images of that name.
        """
        self.sets = [stacks for path in paths for stacks in stack_sets(path)]
        self.masks = self._matched([stacks for path in masks for stacks in _mask_sets(path)])
        self.ends = list(accumulate(stacks.shape[0] for stacks in self.sets))

    def _matched(self, masks: list[StoredStacks]) -> list[StoredStacks | None]:
        """Per data set the masks of the same name, None without."""
        by_name = {mask.name: mask for mask in masks}
        names = {stacks.name for stacks in self.sets}
        unknown = set(by_name) - names
        if unknown:
            raise DataError(
                f"{masks[0].path}: masks of {sorted(unknown)}, and there are no such stacks; there "
                f"are {sorted(names)}"
            )
        matched = [by_name.get(stacks.name) for stacks in self.sets]
        for stacks, mask in zip(self.sets, matched, strict=True):
            if mask is not None:
                check_mask_shape(f"{mask.path}: {stacks.name!r}", stacks.shape, mask.shape)
        return matched

    def __len__(self) -> int:
        return self.ends[-1]

    def place(self, index: int) -> tuple[int, int]:
        """Number of the data set of sample `index`, and its number in that data set."""
        number = bisect_right(self.ends, index)
        return number, index - (self.ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> Stack:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number, inner = self.place(index)
        stacks, mask = self.sets[number], self.masks[number]
        images = as_unit_range(f"{stacks.path}: {stacks.name!r}", stacks.read(IMAGES, inner))
        labels = (mask or stacks).read(MASKS, inner)
        fields = stacks.read(FIELDS, inner)
        return Stack(
            f"{stacks.name}[{inner}]",
            torch.from_numpy(images),
            torch.zeros(images.shape, dtype=torch.uint8)
            if labels is None
            else torch.from_numpy(labels.astype(np.uint8)),
            None if fields is None else torch.from_numpy(fields.astype(np.float32)),
            stacks.mip,
        )


def _mask_sets(path: Path) -> list[StoredStacks]:
    """The masks in a file, as data sets."""
    sets = []
    with open_stack_file(path) as root:
        for name in sorted(root.keys()):
            if MASKS in root[name]:
                shape = tuple(root[name][MASKS].shape)
                sets.append(StoredStacks(path, name, {MASKS: f"{name}/{MASKS}"}, shape))
    return sets


def as_unit_range(name: str, images: np.ndarray | None) -> np.ndarray:
    """Images as float32 in [0, 1]; uint8, and floats above 1, are divided by 255.

    DataError for images on another scale; `name` for the message.
    """
    assert images is not None
    values = images.astype(np.float32)
    if images.dtype == np.uint8 or values.max(initial=0) > 1:
        values /= 255
    if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
        raise DataError(
            f"{name} has images of {images.dtype} with values {images.min():.4g} to "
            f"{images.max():.4g}; stacks hold uint8, or floats in [0, 1]. Make them again with "
            "gen_stack from sections with `normalize`"
        )
    return values
