"""Generated skeletons as the MongoDB dump in which the paper's skeletons are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrace.formats.mongo_dump import write_documents
from retrace.geometry import NmTriple


def write_skeleton_dump(
    folder: Path,
    voxels: np.ndarray,
    edges: np.ndarray,
    cells: np.ndarray,
    voxel_size_nm: NmTriple,
    core: tuple[slice, ...],
    parity: int,
) -> None:
    """Writes the skeletons of the cells with `id % 2 == parity` as collection `phantom`.

    `voxels` (N, 3) z, y, x; `edges` (E, 2) rows of it; `cells` (Z, Y, X). The neuropil of region
    roi_1 is the box `core` without its first tenth of sections.
    """
    cell = cells[tuple(voxels.T)].astype(np.int64)
    keep = cell % 2 == parity
    in_neuropil = keep & _inside(voxels, core)
    component = _components(edges, in_neuropil)
    position = (voxels * voxel_size_nm).tolist()
    nodes = np.flatnonzero(keep).tolist()
    write_documents(
        folder / "phantom.nodes.bson",
        (
            {"id": n, **dict(zip("zyx", position[n], strict=True)), "neuron_id": int(cell[n])}
            for n in nodes
        ),
    )
    write_documents(
        folder / "phantom.edges.bson",
        ({"source": a, "target": b} for a, b in edges[np.all(keep[edges], axis=1)].tolist()),
    )
    write_documents(
        folder / "nodes_phantom_components_roi_1_masked.bson",
        ({"id": n, "component_id": int(component[n])} for n in nodes),
    )
    write_documents(
        folder / "nodes_phantom_mask_roi_1_masked.bson",
        ({"id": n, "masked": bool(in_neuropil[n])} for n in nodes),
    )


def _inside(voxels: np.ndarray, core: tuple[slice, ...]) -> np.ndarray:
    """Which voxels (N, 3) are in the neuropil of the region: (N,) bool."""
    low = [core[0].start + (core[0].stop - core[0].start) // 10, core[1].start, core[2].start]
    high = [axis.stop for axis in core]
    return np.asarray(((voxels >= low) & (voxels < high)).all(axis=1))


def _components(edges: np.ndarray, in_neuropil: np.ndarray) -> np.ndarray:
    """Connected component of each node (N,) inside the neuropil; -1 outside."""
    kept = edges[np.all(in_neuropil[edges], axis=1)]
    count = len(in_neuropil)
    graph = coo_array((np.ones(len(kept)), kept.T), shape=(count, count))
    return np.where(in_neuropil, connected_components(graph, directed=False)[1], -1)
