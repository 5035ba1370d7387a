"""Skeletons: traced neurons as nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrace.geometry import NmBox

NODE_DECIMALS = 6
"""Decimals of positions that count where a node is put into a voxel or a box."""


@dataclass(frozen=True)
class Skeletons:
    """Traced neurons: `position_nm` (nodes, 3) z, y, x, `skeleton` (nodes,), ids above 0, and
    `edges` (edges, 2), pairs of rows. Both ends of an edge are in the same skeleton.

    Edges that are stored twice, in either direction, count once; an edge from a node to itself does
    not count.
    """

    position_nm: np.ndarray
    skeleton: np.ndarray
    edges: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", distinct_edges(self.edges))

    @property
    def edge_length_nm(self) -> np.ndarray:
        """Euclidean length of each edge, (edges,) nm."""
        begin, end = self.position_nm[self.edges[:, 0]], self.position_nm[self.edges[:, 1]]
        return np.asarray(np.linalg.norm(end - begin, axis=1))

    def voxels(self, voxel_size_nm: Sequence[float]) -> np.ndarray:
        """The voxel of each node, (nodes, 3) int64 z, y, x from the world's origin.

        Rounded first: 7 x 4.6 nm is 32.199999999999996 nm, and yet the begin of voxel 7.
        """
        exact = np.round(self.position_nm / np.asarray(voxel_size_nm), NODE_DECIMALS)
        return np.floor(exact).astype(np.int64)

    def within(self, box: NmBox) -> Skeletons:
        """The parts inside `box`; each connected part becomes a separate skeleton.

        Sheridan et al. 2023 crop their skeletons to each region in the same way.
        """
        low, high = np.array(box.offset), np.array(box.end)
        position = np.round(self.position_nm, NODE_DECIMALS)
        inside = np.all((position >= low) & (position < high), axis=1)
        edges = edges_among(inside, self.edges)
        return Skeletons(self.position_nm[inside], connected_parts(int(inside.sum()), edges), edges)


def distinct_edges(edges: np.ndarray) -> np.ndarray:
    """The edges (edges, 2) between two different nodes, each pair once, in their order."""
    edges = edges.reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, first = np.unique(np.sort(edges, axis=1), axis=0, return_index=True)
    return np.asarray(edges[np.sort(first)])


def edges_among(keep: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The edges (edges, 2) between kept nodes, as rows of the kept nodes; `keep` (nodes,) bool."""
    row = np.cumsum(keep) - 1
    return np.asarray(row[edges[np.all(keep[edges], axis=1)]])


def connected_parts(count: int, edges: np.ndarray) -> np.ndarray:
    """The connected part of each of `count` nodes, (count,), from 1; `edges` (edges, 2)."""
    links = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    return connected_components(links, directed=False)[1].astype(np.int64) + 1
