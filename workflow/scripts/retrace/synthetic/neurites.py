"""Generated neuropil with its exact segmentation and centre lines; all sizes in nm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrace.errors import ConfigError
from retrace.geometry import checked_voxel_size, triple
from retrace.synthetic.cell_labels import connected_pieces, faces, fill_gaps, paint_neurites
from retrace.synthetic.em_image import em_image
from retrace.synthetic.growth import grow_neurites, neurite_edges
from retrace.synthetic.tissue import Tissue


def generate_neurites(
    shape: Sequence[int],
    voxel_size_nm: Sequence[float],
    seed: int,
    tissue: Tissue | None = None,
    *,
    thin_background: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Raw (Z, Y, X) uint8 and labels (Z, Y, X) uint64; equal arguments give equal bytes.

    Labels have no gaps: ids 1..N, each one 6-connected piece. `thin_background` sets the voxels at
    membranes to 0. ConfigError if a length is below 1.
    """
    size, tissue, random = (
        checked_voxel_size(voxel_size_nm),
        tissue or Tissue(),
        np.random.default_rng(seed),
    )
    if min(shape) < 1 or min(size) < 1:
        raise ConfigError(
            f"a phantom of shape {list(shape)} voxels of {list(size)} nm is empty; all lengths "
            "must be 1 or more"
        )
    extent_nm = np.asarray(shape, float) * size
    balls = grow_neurites(extent_nm, tissue, random)
    ids, mitochondria = paint_neurites(balls, triple(shape), size)
    cells = fill_gaps(ids, size)
    raw = em_image(cells, mitochondria, size, tissue, random)
    labels = connected_pieces(cells)
    if thin_background:
        labels[faces(labels)] = 0
    return raw, labels


def centre_lines(
    shape: Sequence[int],
    voxel_size_nm: Sequence[float],
    seed: int,
    tissue: Tissue | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (N, 3) z, y, x along the neurites of `generate_neurites`, and edges (E, 2).

    An edge joins two rows that are neighbours on one neurite.
    """
    size, tissue = checked_voxel_size(voxel_size_nm), tissue or Tissue()
    extent_nm = np.asarray(shape, float) * size
    balls = grow_neurites(extent_nm, tissue, np.random.default_rng(seed))
    voxels = np.floor([ball.centre / size for ball in balls]).astype(np.int64)
    edges = np.array(list(neurite_edges(balls)), np.int64).reshape(-1, 2)
    inside = np.all((voxels >= 0) & (voxels < np.asarray(shape)), axis=1)
    row = np.cumsum(inside) - 1
    return voxels[inside], row[edges[np.all(inside[edges], axis=1)]]
