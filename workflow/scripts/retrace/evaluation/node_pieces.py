"""Pieces of skeletons in their nodes: edges that a split cuts, and nodes that a merge joins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.error_places import Neighbours, Place
from retrace.evaluation.error_shares import PairError
from retrace.evaluation.node_segments import NodeSegments
from retrace.evaluation.voxel_pieces import middle_of
from retrace.geometry import NmBox, nm_triple

MAX_EDGES = 20
"""Edges of an error that are listed; all are counted."""


@dataclass(frozen=True)
class NodePieces:
    """The pieces of skeletons, as rows of the table of their nodes."""

    nodes: NodeSegments

    @property
    def table(self) -> Contingency:
        """Segments against skeletons, counted in nodes."""
        return self.nodes.table

    @cached_property
    def piece(self) -> np.ndarray:
        """The row of each node, (nodes,)."""
        pairs = np.column_stack([self.nodes.segments, self.nodes.skeletons.skeleton])
        return np.unique(pairs.astype(np.uint64), axis=0, return_inverse=True)[1].ravel()

    @cached_property
    def ends(self) -> np.ndarray:
        """The rows of both ends of each edge, (edges, 2)."""
        return np.asarray(self.piece[self.nodes.skeletons.edges])

    def neighbours(self) -> Neighbours:
        """Pieces of a skeleton that edges join, and how many edges."""
        near: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for first, second in self.ends[self.ends[:, 0] != self.ends[:, 1]].tolist():
            near[first][second] += 1
            near[second][first] += 1
        return near

    def contact(self, error: PairError, other: int) -> Place:
        """The middle of an edge between the pieces; all such edges are cut."""
        pair = sorted((error.piece, other))
        cut = np.flatnonzero((np.sort(self.ends, axis=1) == pair).all(axis=1))
        middles = self._edge_points(cut).mean(axis=1)
        return Place(tuple(middle_of(middles, np.ones(3)).tolist()), 0.0, self._edges(cut, "cut"))

    def closest(self, error: PairError, others: Collection[int]) -> tuple[int, Place]:
        """The piece with the nearest node, and the middle between the nodes.

        All edges within the piece of a merge are merged.
        """
        position = self.nodes.skeletons.position_nm
        mine = np.flatnonzero(self.piece == error.piece)
        theirs = np.flatnonzero(np.isin(self.piece, list(others)))
        distance, nearest = cKDTree(position[theirs]).query(position[mine])
        first = int(np.argmin(distance))
        node, other = mine[first], theirs[nearest[first]]
        middle = (position[node] + position[other]) / 2
        place = Place(tuple(middle.tolist()), float(distance[first]), self._inside(error))
        return int(self.piece[other]), place

    def box(self, piece: int) -> NmBox:
        """The box of the nodes of a piece."""
        position = self.nodes.skeletons.position_nm[self.piece == piece]
        low, high = position.min(axis=0), position.max(axis=0)
        return NmBox(nm_triple(low.tolist()), nm_triple((high - low).tolist()))

    def _inside(self, error: PairError) -> dict[str, Any]:
        if error.kind == "split":
            return self._edges(np.zeros(0, np.int64), "cut")
        merged = np.flatnonzero((self.ends == error.piece).all(axis=1))
        return self._edges(merged, "merged")

    def _edge_points(self, edges: np.ndarray) -> np.ndarray:
        """Both ends of edges, (edges, 2, 3) nm."""
        return np.asarray(self.nodes.skeletons.position_nm[self.nodes.skeletons.edges[edges]])

    def _edges(self, edges: np.ndarray, what: str) -> dict[str, Any]:
        """How many edges are cut or merged, their length, and the ends of the first ones."""
        length = self.nodes.skeletons.edge_length_nm[edges].sum()
        ends = self._edge_points(edges[:MAX_EDGES])
        listed = [[list(nm_triple(end)) for end in edge] for edge in ends.tolist()]
        return {f"{what}_edges": len(edges), "edges_nm": listed, "length_nm": round(length, 3)}
