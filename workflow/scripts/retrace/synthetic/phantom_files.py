"""Generated volumes on disk in the published layouts: zarr, HDF5 cubes, precomputed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import zarr

from retrace.errors import ConfigError, nearest
from retrace.geometry import NmTriple, Triple, checked_voxel_size, in_nm, triple
from retrace.storage.precomputed_writer import write_layer
from retrace.synthetic.cell_labels import connected_pieces, faces
from retrace.synthetic.neurites import centre_lines, generate_neurites
from retrace.synthetic.skeleton_dump import write_skeleton_dump
from retrace.synthetic.tissue import Tissue

HEMI_BACKGROUND_ID = 2**64 - 3
"""The id that fills the hemibrain labels outside their core (lsd_nm_experiments, create_masks)."""
TESTING = "funke/phantom/testing/ground_truth"
"""Folder of the ground truth of `write_paper_phantom`, named like the zebra finch's."""
RAW, LABELS = "volumes/raw", "volumes/labels/neuron_ids"
CHUNKS: Triple = (32, 64, 64)
LAYOUTS = ("zebrafinch", "hemi")


def write_phantom_store(
    store: Path,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[float],
    seed: int,
    *,
    layout: str = "zebrafinch",
    chunks: Sequence[int] = CHUNKS,
    tissue: Tissue | None = None,
) -> None:
    """Writes raw and labels as the bucket stores them; `shape`: labelled box, `margin`: per side.

    `layout` "zebrafinch": raw reaches `margin` voxels further than the labels. "hemi": both have
    the larger shape and the labels' margin is filled with the background id 2^64 - 3. ConfigError
    for another layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no phantom layout {layout!r}; {nearest(layout, LAYOUTS)}")
    size, edge = checked_voxel_size(voxel_size_nm), triple(margin)
    whole = _with_margin(shape, edge)
    raw, cells = generate_neurites(whole, size, seed, tissue)
    core = _core(shape, edge)
    labels, offset = connected_pieces(cells[core].astype(np.int64)), edge
    if layout == "hemi":
        padded = np.full(whole, HEMI_BACKGROUND_ID, np.uint64)
        padded[core] = labels
        labels, offset = padded, (0, 0, 0)
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.require_group("volumes").require_group("labels")
    _create_array(group, RAW, raw, triple(chunks), size, (0, 0, 0))
    _create_array(group, LABELS, labels, triple(chunks), size, offset)


def write_barrier_cube(
    folder: Path,
    number: int,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[float],
    seed: int,
) -> None:
    """Writes raw_N.h5 (`raw`, uint8) and barrier_int16_N.h5 (`lab`, uint16), axes x, y, z.

    The layout of ELEKTRONN's example: class 1 on both sides of each border, labels in the middle of
    a larger image. `shape` of the labels, `margin` of the image per side: z, y, x.
    """
    size, edge = checked_voxel_size(voxel_size_nm), triple(margin)
    raw, cells = generate_neurites(_with_margin(shape, edge), size, seed)
    barriers = faces(cells)[_core(shape, edge)].astype(np.uint16)
    files = {f"raw_{number}": ("raw", raw), f"barrier_int16_{number}": ("lab", barriers)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (key, data) in files.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset(key, data=data.T, compression="lzf")


def write_paper_phantom(
    layer: Path,
    bucket: Path,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[float],
    seed: int,
) -> None:
    """Writes one region in the layout of the paper's regions.

    Raw becomes a precomputed layer at `layer`. Below `bucket`: labels in data.zarr, and skeletons,
    half of them for validation.
    """
    size, edge = checked_voxel_size(voxel_size_nm), triple(margin)
    whole, core = _with_margin(shape, edge), _core(shape, edge)
    raw, cells = generate_neurites(whole, size, seed)
    write_layer(layer, raw, size, (0, 0, 0))
    group = zarr.open_group(bucket / TESTING / "data.zarr", mode="w", zarr_format=2)
    labels = connected_pieces(cells[core].astype(np.int64))
    _create_array(group, "volumes/roi_1/consolidated_ids", labels, CHUNKS, size, edge)
    voxels, edges = centre_lines(whole, size, seed)
    same = cells[tuple(voxels[edges[:, 0]].T)] == cells[tuple(voxels[edges[:, 1]].T)]
    for split, parity in (("testing", 0), ("validation", 1)):
        folder = bucket / TESTING / split
        write_skeleton_dump(folder, voxels, edges[same], cells, size, core, parity)


def _with_margin(shape: Sequence[int], margin: Triple) -> Triple:
    return triple([s + 2 * m for s, m in zip(shape, margin, strict=True)])


def _core(shape: Sequence[int], margin: Triple) -> tuple[slice, ...]:
    """Index of the labelled box in the volume with its margin."""
    return tuple(slice(m, m + s) for m, s in zip(margin, shape, strict=True))


def _create_array(
    group: zarr.Group, name: str, data: np.ndarray, chunks: Triple, size: NmTriple, offset: Triple
) -> None:
    """One array as zarr 2 wrote it for the bucket: v2, keys with dots, attributes in nm."""
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=tuple(min(c, s) for c, s in zip(chunks, data.shape, strict=True)),
        dtype=data.dtype,
        chunk_key_encoding={"name": "v2", "separator": "."},
        attributes={
            "resolution": list(size),
            "offset": list(in_nm(offset, size)),
        },
        config={"write_empty_chunks": True},
    )
    array[:] = data
