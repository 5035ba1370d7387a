"""Snapshots of single batches as zarr stores, to look at while a training runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retrace.geometry import NmTriple
from retrace.planning.training_folders import snapshot_name
from retrace.storage.chunk_edges import CHUNK_SHAPE
from retrace.storage.zarr_writer import create_volume, writing
from retrace.training.task import Picture

KEEP = 20
"""How many snapshots are kept; one of a paper-sized network takes about 40 MB."""


def is_shown(iteration: int, first: int, last: int, every: int) -> bool:
    """Whether a snapshot of an iteration is due: of `first` and `last` of a run, and of multiples.

    The original counts the batches of the running process from 0, so its first batch is shown
    (gunpowder, Snapshot).
    """
    return iteration in (first, last) or iteration % every == 0


def save_snapshot(
    folder: Path, iteration: int, pictures: Mapping[str, Picture], voxel_size_nm: NmTriple
) -> Path:
    """Writes `batch_ITERATION.zarr`, one array per picture, and deletes all but the last 20.

    A kill at any moment leaves complete snapshots, and unfinished ones under other names.
    """
    final = folder / snapshot_name(iteration)
    for unfinished in folder.glob("*.partial"):
        shutil.rmtree(unfinished)
    with writing(final) as store:
        for name, picture in pictures.items():
            data = as_stored(picture)
            array = create_volume(
                store,
                name,
                shape=data.shape,
                chunks=(*data.shape[:-3], *CHUNK_SHAPE),
                dtype=data.dtype,
                voxel_size_nm=voxel_size_nm,
                offset_nm=picture.offset_nm,
            )
            array[...] = data
    for old in sorted(folder.glob("batch_*.zarr"))[:-KEEP]:
        # Renamed first: what is deleted file by file is incomplete meanwhile.
        shutil.rmtree(old.rename(old.with_name(f"{old.name}.partial")))
    return final


def as_stored(picture: Picture) -> np.ndarray:
    """The values of a picture; ids are unsigned."""
    data = picture.data.cpu().numpy()
    return data.astype(np.uint64) if data.dtype == np.int64 else data
