"""Which edges between fragments join at a threshold: by their scores, or by a multicut.

Everything that makes segments of fragments asks a RegionGraph, which is opened here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import ConfigError, DataError
from retrace.segmentation.edge_classifier import read_classifier
from retrace.segmentation.edge_features import VOXELS, EdgeTable, edge_table
from retrace.segmentation.grid import FragmentIds, fragment_ids
from retrace.segmentation.lut import joins, lut_of_pairs
from retrace.segmentation.multicut import attraction, joined_edges
from retrace.storage.manifest import reading
from retrace.storage.volumes import open_group, open_volume

EDGES, SCORES = "edges", "scores"
EDGE_FEATURES, FRAGMENT_FEATURES = "edge_features", "fragment_features"
"""Arrays of a store of fragments; those with features instead of scores need a classifier."""


@dataclass(frozen=True)
class RegionGraph:
    """Edges between fragments, (E, 2) uint64, and the score at which each joins them, (E,).

    NaN: never joins. Both may be arrays on the disk.
    """

    edges: Any
    scores: Any

    def joined(self, threshold: float, part: slice = slice(None)) -> np.ndarray:
        """Which edges of `part` join their fragments at `threshold`, bool."""
        return joins(self.scores[part], threshold)

    def segments(self, fragments: np.ndarray, threshold: float) -> np.ndarray:
        """The segment of each fragment id in `fragments`, any shape, at `threshold`; 0 stays 0.

        Fragments outside the scored region count too: they may join two fragments inside it.
        """
        nodes = np.union1d(self.edges.ravel(), fragments.ravel()).astype(np.uint64)
        lut = lut_of_pairs(self.edges[self.joined(threshold)], nodes)
        return lut[np.searchsorted(nodes, fragments)]

    def in_memory(self) -> RegionGraph:
        """The graph with its arrays in memory, as `segments` needs them."""
        return RegionGraph(np.asarray(self.edges[...]), np.asarray(self.scores[...]))


@dataclass(frozen=True)
class MulticutGraph(RegionGraph):
    """Edges with `faces` (E,) and the probability of different objects as scores; in memory.

    At each threshold the edges join that are inside the parts of a multicut, where edges with a
    lower score attract, and those with a higher one repel.
    """

    faces: np.ndarray
    _last: dict[float, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def joined(self, threshold: float, part: slice = slice(None)) -> np.ndarray:
        """Which edges of `part` are inside the segments at `threshold`, bool; none at 0."""
        if threshold not in self._last:
            self._last.clear()  # those of all thresholds would take 50 bytes an edge
            self._last[threshold] = self._cut(threshold)
        return self._last[threshold][part]

    def in_memory(self) -> RegionGraph:
        """Itself: a multicut is of the whole graph, which is in memory."""
        return self

    def _cut(self, threshold: float) -> np.ndarray:
        if threshold <= 0:
            return np.zeros(len(self.scores), bool)
        nodes, ends = np.unique(self.edges, return_inverse=True)
        weights = attraction(self.scores, self.faces, threshold)
        return joined_edges(len(nodes), ends.reshape(-1, 2), weights)


def open_region_graph(store: Path, classifier: Path | None = None) -> RegionGraph:
    """The region graph in a store of fragments; its arrays stay on the disk unless they are cut.

    `classifier`: the file that turns features of edges into scores. DataError if the store has no
    region graph, or one that does not fit the classifier; ConfigError if it needs a classifier.
    """
    group = open_group(store)
    if EDGE_FEATURES in group:
        if classifier is None:
            raise ConfigError(
                f"{store} has features of edges, which need a classifier; give --classifier FILE"
            )
        stored = read_features(store)
        scores = read_classifier(classifier).scores(stored.edges, stored.table)
        return MulticutGraph(stored.edges, scores, stored.table.faces)
    if EDGES not in group or SCORES not in group:
        raise DataError(f"{store} has no region graph (arrays edges, scores); run segment again")
    return RegionGraph(group[EDGES], group[SCORES])


def load_region_graph(store: Path, classifier: Path | None = None) -> RegionGraph:
    """The region graph in a store of fragments, in memory; see `open_region_graph`."""
    graph = open_region_graph(store, classifier)
    with reading(store):
        return graph.in_memory()


@dataclass(frozen=True)
class StoredFeatures:
    """The edges (E, 2) of a store of fragments, their features, and the fragments.

    `voxels` (N,): the size of each fragment, in the order of `ids`.
    """

    edges: np.ndarray
    table: EdgeTable
    ids: FragmentIds
    voxels: np.ndarray


def read_features(store: Path) -> StoredFeatures:
    """The features in a store of fragments; DataError where it has none, or of other fragments."""
    group = open_group(store)
    ids, arrays = stored_ids(group, store), dict[str, Any](group.arrays())
    if EDGE_FEATURES not in arrays or FRAGMENT_FEATURES not in arrays:
        raise DataError(f"{store} has no features of edges; delete it and rerun `segment`")
    with reading(store):
        edges, contacts = (np.asarray(arrays[name][...]) for name in (EDGES, EDGE_FEATURES))
        fragments = np.asarray(arrays[FRAGMENT_FEATURES][...])
    names = tuple(arrays[FRAGMENT_FEATURES].attrs["names"])
    if len(fragments) != ids.total or len(contacts) != len(edges):
        raise DataError(f"{store} has features of other fragments; delete it and rerun `segment`")
    table = edge_table(contacts, fragments, names, ids.rows(edges))
    return StoredFeatures(edges, table, ids, fragments[:, names.index(VOXELS)])


def stored_ids(group: zarr.Group, store: Path) -> FragmentIds:
    """The ids of the fragments of a store."""
    if "counts" not in group:
        raise DataError(f"{store} has no array counts; delete it and rerun `segment`")
    counts: Any = group["counts"]
    return fragment_ids(open_volume(store, "fragments"), np.asarray(counts[...]))
