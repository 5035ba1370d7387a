"""Files of stacks: written sample by sample, combined without loading them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from retrace.alignment.stack_files import ARRAYS, FIELDS, IMAGES, MASKS, is_h5, opened, stack_sets
from retrace.alignment.stack_sampling import Sample
from retrace.errors import ConfigError
from retrace.progress import progress
from retrace.storage.zarr_writer import COMPRESSOR, publish

LARGEST_CHUNK = 256
"""Edge of a chunk at most, pixels; a chunk is of one section of one sample."""


def chunk_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Chunks of an array (N, S, ..., H, W): one image, or a tile of it."""
    return (*[1] * (len(shape) - 2), *(min(n, LARGEST_CHUNK) for n in shape[-2:]))


@contextmanager
def creating(path: Path) -> Iterator[Any]:
    """The root group of a new h5 file or zarr store, which gets its name when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    if is_h5(path):
        with h5py.File(partial, "w") as file:
            yield file
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
        return
    shutil.rmtree(partial, ignore_errors=True)
    yield zarr.open_group(partial, mode="w", zarr_format=2)
    publish(partial, path)


def create_array(group: Any, name: str, shape: Sequence[int], dtype: Any) -> Any:
    """An empty array of a group of either format, compressed, with checksums."""
    if isinstance(group, h5py.Group):
        return group.create_dataset(
            name,
            shape=tuple(shape),
            dtype=dtype,
            chunks=chunk_shape(shape),
            compression="gzip",
            compression_opts=1,
            fletcher32=True,
        )
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=chunk_shape(shape),
        compressors=COMPRESSOR,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _arrays(sample: Sample) -> dict[str, np.ndarray]:
    """What a sample has, by the names in a data set."""
    every = {IMAGES: sample.images, MASKS: sample.masks, FIELDS: sample.fields}
    return {name: data for name, data in every.items() if data is not None}


def write_stacks(
    path: Path, name: str, samples: Iterable[Sample], count: int, attrs: Mapping[str, Any]
) -> None:
    """A file of one data set, `count` samples, one in memory at a time."""
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


def kept(work: Path, number: int, draw: Callable[[int], Sample]) -> Sample:
    """Sample `number` from `work` where an earlier run left it, else drawn and left there."""
    file = work / f"stack_{number:06d}.npz"
    if file.is_file():
        with np.load(file) as found:
            parts = {name: found.get(name) for name in ARRAYS}
            corner = tuple(int(v) for v in found["corner_nm"])
        return Sample(corner, *(parts[name] for name in ARRAYS))  # type: ignore[arg-type]
    sample = draw(number)
    work.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened_file:
        np.savez(opened_file, corner_nm=np.array(sample.corner_nm), **_arrays(sample))  # type: ignore[arg-type]
    partial.replace(file)
    return sample


def combine(output: Path, sources: Sequence[Path]) -> dict[str, int]:
    """All data sets of several files in one, under their names; samples by name.

    One image is in memory at a time. ConfigError where two have one name, or a source is the
    output; DataError for a file without stacks.
    """
    if output.resolve() in [source.resolve() for source in sources]:
        raise ConfigError(f"{output} is one of the sources too; give the output another name")
    sets = [one for source in sources for one in stack_sets(source)]
    names = [one.name for one in sets]
    for one in sets:
        if names.count(one.name) > 1:
            files = ", ".join(str(other.path) for other in sets if other.name == one.name)
            raise ConfigError(
                f"{files}: each has a data set {one.name!r}; a combined file can hold one. Make "
                "the stacks of one of them under another name"
            )
    with creating(output) as root:
        for one in sets:
            _copy_set(root, one.path, one.name)
    return {one.name: one.shape[0] for one in sets}


def _copy_set(root: Any, path: Path, name: str) -> None:
    """One data set of a file, an image at a time; a bare array becomes a group's `images`."""
    with opened(path) as source:
        item = source[name]
        group = root.create_group(name)
        group.attrs.update(dict(item.attrs))
        arrays = (
            {a: item[a] for a in ARRAYS if a in item} if hasattr(item, "keys") else {IMAGES: item}
        )
        samples = item.shape[0] if IMAGES not in arrays else arrays[IMAGES].shape[0]
        made = {a: create_array(group, a, v.shape, v.dtype) for a, v in arrays.items()}
        for index in progress(range(samples), samples, f"combine {name}", "stacks"):
            for array, values in arrays.items():
                for section in range(values.shape[1]):
                    made[array][index, section] = values[index, section]


def masks_like(
    path: Path, output: Path, masks_of: Callable[[np.ndarray], np.ndarray], *, keep: bool
) -> int:
    """Masks of every data set in a file, by `masks_of` of each stack (S, H, W); their number.

    `keep`: joined with the masks that the file has itself, as those of a mask layer.
    """
    sets = stack_sets(path)
    with creating(output) as root:
        for one in sets:
            made = create_array(root.create_group(one.name), MASKS, one.shape, np.uint8)
            for index in progress(range(one.shape[0]), one.shape[0], "masks", "stacks"):
                images, given = one.read(IMAGES, index), one.read(MASKS, index)
                assert images is not None
                found = masks_of(images)
                made[index] = np.maximum(found, given) if keep and given is not None else found
    return sum(one.shape[0] for one in sets)
