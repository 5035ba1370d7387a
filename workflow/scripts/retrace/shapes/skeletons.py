"""Skeletons of segments with TEASAR (Sato et al. 2000), block by block, joined at the borders.

Two neighbouring blocks share one plane of voxels. On it, both choose the same voxel for each patch
of a segment, and each leads its skeleton there (bioimage-cpp, `skeleton.distributed`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrace.shapes.pieces import Piece

Face = tuple[int, str]
"""A side of a block: the axis, and "low" or "high"."""


def centrelines(
    labels: np.ndarray,
    offset: Sequence[int],
    open_faces: Sequence[Face],
    voxel_size_nm: Sequence[float],
    scale: float,
    constant_nm: float,
) -> dict[int, Piece]:
    """The skeleton of each segment in `labels` (Z, Y, X), led to the block's open faces.

    `offset`: of its first voxel (z, y, x), voxels. `scale`, `constant_nm`: a branch that stays
    within this many radii plus so many nm of the skeleton is left out.
    """
    from bioimage_cpp.skeleton import distributed

    place = {"origin": list(offset), "spacing": list(voxel_size_nm)}
    targets = distributed.block_border_targets_labels(labels, open_faces, **place)
    found = distributed.block_teasar_labels(
        labels,
        open_faces=open_faces,
        required_targets=targets,
        scale=scale,
        constant=constant_nm,
        **place,
    )
    return {int(name): piece for name, piece in found.items()}


def merged(pieces: Sequence[Piece], voxel_size_nm: Sequence[float]) -> Piece:
    """The skeleton of one segment: trees, one for each part of it that is connected.

    Loops between blocks are cut at their longest edge.
    """
    from bioimage_cpp.skeleton import distributed

    whole = [(v.astype(np.int64), e.astype(np.uint64), r) for v, e, r in pieces]
    joined = distributed.merge_block_skeletons(whole)
    piece: Piece = distributed.minimum_spanning_forest(joined, spacing=list(voxel_size_nm))
    return piece


def rooted(count: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order (N,) of the vertices of trees, each after its parent, and their parents (N,).

    A parent is a vertex number; roots have -1. `edges`: (E, 2) of `count` vertices.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    ones = np.ones(len(edges), np.int8)
    graph = coo_matrix((ones, edges.astype(np.int64).T), (count, count)).tocsr()
    _, tree = connected_components(graph, directed=False)
    _, roots = np.unique(tree, return_index=True)
    orders, parents = [], np.full(count, -1)
    for root in roots:
        order, before = breadth_first_order(graph, root, directed=False)
        parents[order[1:]] = before[order[1:]]
        orders.append(order)
    return np.concatenate(orders), parents
