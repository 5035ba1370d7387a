"""Files of stacks, written sample by sample and combined without loading them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from retrace.alignment.stack_files import (
    ARRAYS,
    FIELDS,
    IMAGES,
    MASKS,
    StoredStacks,
    is_h5,
    open_stack_file,
    stack_sets,
)
from retrace.alignment.stack_sampling import SampledStack
from retrace.errors import ConfigError
from retrace.formats.npz import opened_npz
from retrace.geometry import nm_triple
from retrace.progress import progress
from retrace.reading import if_intact
from retrace.replacement import put
from retrace.storage.unfinished import hide_checksum
from retrace.storage.zarr_writer import encoding, publish

LARGEST_CHUNK = 256
"""Largest edge of a chunk, pixels; a chunk belongs to one section of one sample."""


def stack_chunk_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Chunk shape of an array (N, S, ..., H, W): one image, or a tile of it."""
    return (*[1] * (len(shape) - 2), *(min(n, LARGEST_CHUNK) for n in shape[-2:]))


@contextmanager
def creating(path: Path) -> Iterator[Any]:
    """The root group of a new h5 file or zarr store; it appears at `path` only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    if is_h5(path):
        with h5py.File(partial, "w") as file:
            yield file
        put(partial, path)
        return
    shutil.rmtree(partial, ignore_errors=True)
    yield zarr.open_group(partial, mode="w", zarr_format=2)
    publish(partial, path)


def create_array(group: Any, name: str, shape: Sequence[int], dtype: Any) -> Any:
    """A new array in an h5 or zarr group, compressed and with checksums."""
    if isinstance(group, h5py.Group):
        return group.create_dataset(
            name,
            shape=tuple(shape),
            dtype=dtype,
            chunks=stack_chunk_shape(shape),
            compression="gzip",
            compression_opts=1,
            fletcher32=True,
        )
    created = group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=stack_chunk_shape(shape),
        **encoding(2),
    )
    hide_checksum(created)
    return created


def _arrays(sample: SampledStack) -> dict[str, np.ndarray]:
    """The arrays of a sample, by their names in a data set."""
    arrays = {IMAGES: sample.images, MASKS: sample.masks, FIELDS: sample.fields}
    return {name: data for name, data in arrays.items() if data is not None}


def write_stacks(
    path: Path, name: str, samples: Iterable[SampledStack], count: int, attrs: Mapping[str, Any]
) -> None:
    """Writes a file with one data set of `count` samples, one in memory at a time."""
    with creating(path) as root:
        group = root.create_group(name)
        group.attrs.update(attrs)
        arrays: dict[str, Any] = {}
        for index, sample in enumerate(progress(samples, count, "gen_stack", "stacks")):
            for array, data in _arrays(sample).items():
                if array not in arrays:
                    shape = (count, *data.shape)
                    arrays[array] = create_array(group, array, shape, data.dtype)
                arrays[array][index] = data


def _saved(file: Path) -> SampledStack:
    """A stack that an earlier run drew."""
    with opened_npz(file) as saved:
        if other := set(saved.files) - {*ARRAYS, "corner_nm"}:
            raise ValueError(f"it holds {', '.join(other)}")  # the name of an array changed
        parts = {name: saved.get(name) for name in ARRAYS}
        corner = nm_triple(saved["corner_nm"].tolist())
    return SampledStack(corner, *(parts[name] for name in ARRAYS))


def resumable_stack(work: Path, number: int, draw: Callable[[int], SampledStack]) -> SampledStack:
    """Stack `number`: read from `work` if an earlier run drew it, else drawn and saved."""
    file = work / f"stack_{number:06d}.npz"
    if file.is_file():
        saved = if_intact(lambda: _saved(file), file)  # else it is drawn again
        if saved is not None:
            return saved
    sample = draw(number)
    work.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened_file:
        np.savez(opened_file, corner_nm=np.array(sample.corner_nm), **_arrays(sample))  # type: ignore[arg-type]
    partial.replace(file)
    return sample


def combine_stack_files(output: Path, sources: Sequence[Path]) -> dict[str, int]:
    """Copies the data sets of several files into one; returns the number of samples by name.

    A data set keeps its name; if another one has it too, it gets the name of its file, as in
    SEAMLeSS's combine_h5.py. One image at a time is in memory. ConfigError if two data sets still
    have the same name or a source is the output; DataError for a file without stacks.
    """
    if output.resolve() in [source.resolve() for source in sources]:
        raise ConfigError(f"{output} is one of the sources too; give the output another name")
    sets = [stacks for source in sources for stacks in stack_sets(source)]
    names = _names_in_one_file(sets)
    with creating(output) as root:
        for stacks, name in zip(sets, names, strict=True):
            _copy_set(root, stacks.path, stacks.name, name)
    return {name: stacks.shape[0] for stacks, name in zip(sets, names, strict=True)}


def _names_in_one_file(sets: Sequence[StoredStacks]) -> list[str]:
    """The names of data sets in a combined file; ConfigError if two are the same."""
    own = [stacks.name for stacks in sets]
    in_file = [(stacks.path, stacks.name) for stacks in sets]
    names = []
    for path, name in in_file:
        alone = sum(other == path for other, _ in in_file) == 1
        by_file = path.stem if alone else f"{path.stem}_{name}"
        names.append(by_file if own.count(name) > 1 else name)
    for stacks, name in zip(sets, names, strict=True):
        if names.count(name) > 1:
            files = ", ".join(str(s.path) for s, n in zip(sets, names, strict=True) if n == name)
            raise ConfigError(
                f"{files}: their data sets {stacks.name!r} would both be called {name!r} in the "
                "combined file; rename one of the files"
            )
    return names


def _copy_set(root: Any, path: Path, name: str, copy: str) -> None:
    """Copies one data set as `copy`, an image at a time; a bare array becomes `images` of it."""
    with open_stack_file(path) as source:
        item = source[name]
        group = root.create_group(copy)
        group.attrs.update(dict(item.attrs))
        arrays = (
            {a: item[a] for a in ARRAYS if a in item} if hasattr(item, "keys") else {IMAGES: item}
        )
        samples = item.shape[0] if IMAGES not in arrays else arrays[IMAGES].shape[0]
        copies = {a: create_array(group, a, v.shape, v.dtype) for a, v in arrays.items()}
        for index in progress(range(samples), samples, f"combine {copy}", "stacks"):
            for array, values in arrays.items():
                for section in range(values.shape[1]):
                    copies[array][index, section] = values[index, section]


def write_masks(
    path: Path, output: Path, masks_of: Callable[[np.ndarray], np.ndarray], *, keep_existing: bool
) -> int:
    """Writes masks of all stacks in a file, with `masks_of` (S, H, W); returns their number.

    `keep_existing`: each pixel gets the larger label of the new and the file's own masks.
    """
    sets = stack_sets(path)
    with creating(output) as root:
        for stacks in sets:
            count = stacks.shape[0]
            array = create_array(root.create_group(stacks.name), MASKS, stacks.shape, np.uint8)
            for index in progress(range(count), count, "masks", "stacks"):
                images, existing = stacks.read(IMAGES, index), stacks.read(MASKS, index)
                assert images is not None
                masks = masks_of(images)
                if keep_existing and existing is not None:
                    masks = np.maximum(masks, existing)
                array[index] = masks
    return sum(stacks.shape[0] for stacks in sets)
