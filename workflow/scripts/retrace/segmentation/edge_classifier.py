"""A random forest as arrays: the probability that an edge is between different objects.

The file holds no code: arrays of all trees, checked when they are read. It also holds the
out-of-bag probabilities of the edges that it was trained on: those of the trees that have not seen
an edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrace.compiled import compiled
from retrace.errors import DataError
from retrace.machine_limits import usable_cores
from retrace.segmentation.edge_features import EdgeTable

AT_ONCE = 1 << 14
"""Edges that a thread classifies at once."""
LEAF = -1
"""The children of a node without children."""
ARRAYS = {
    "starts": np.int64,
    "feature": np.int64,
    "threshold": np.float64,
    "left": np.int64,
    "right": np.int64,
    "score": np.float64,
}
"""The arrays of a forest and their types."""
AGAIN = "delete it and run the same command again"


@dataclass(frozen=True)
class Forest:
    """Trees, one after the other: the nodes of tree t are starts[t] ... starts[t + 1] - 1.

    An edge goes to `left` (nodes,) where its `feature` is at most `threshold`, else to `right`.
    The `score` of the leaf where it ends is the probability of different objects.
    """

    starts: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    score: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """The mean score of all trees, (E,) float64, of edges with `features` (E, F) float32."""
        trees = [getattr(self, name) for name in ARRAYS]
        parts = [features[begin : begin + AT_ONCE] for begin in range(0, len(features), AT_ONCE)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.concatenate([np.empty(0), *pool.map(lambda x: _mean_score(x, *trees), parts)])


@compiled
def _mean_score(
    features: np.ndarray,
    starts: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    score: np.ndarray,
) -> np.ndarray:
    total = np.zeros(len(features))
    for tree in range(len(starts) - 1):  # one tree after the other: it stays in the cache
        for edge in range(len(features)):
            node = starts[tree]
            while left[node] >= 0:
                low = features[edge, feature[node]] <= threshold[node]
                node = left[node] if low else right[node]
            total[edge] += score[node]
    return total / (len(starts) - 1)


def check_forest(forest: Forest, features: int) -> None:
    """Raises ValueError unless every edge with so many features ends in a leaf with a score."""
    nodes = len(forest.feature)
    for name, dtype in ARRAYS.items():
        array = getattr(forest, name)
        if array.dtype != dtype or array.ndim != 1 or (name != "starts" and len(array) != nodes):
            raise ValueError(f"its array {name} is {array.dtype} {array.shape}")
    begins = forest.starts
    if len(begins) < 2 or begins[0] != 0 or begins[-1] != nodes or (np.diff(begins) < 1).any():
        raise ValueError("its `starts` do not divide the nodes into trees")
    end = np.repeat(begins[1:], np.diff(begins))
    inner = forest.left != LEAF
    for child in (forest.left, forest.right):
        if ((child != LEAF) != inner).any():
            raise ValueError("a node has one child")
        # Children come after their parents, so that no path has a cycle.
        if ((child <= np.arange(nodes)) | (child >= end))[inner].any():
            raise ValueError("the child of a node is not a later node of its tree")
    if ((forest.feature < 0) | (forest.feature >= features))[inner].any():
        raise ValueError(f"a node asks for a feature that is not among its {features}")
    if not np.isfinite(forest.threshold[inner]).all():
        raise ValueError("a threshold is not a number")
    if not ((forest.score >= 0) & (forest.score <= 1)).all():
        raise ValueError("a score is not a probability")


@dataclass(frozen=True)
class EdgeClassifier:
    """A forest, the names of its features, and the edges on which it was trained.

    `trained`: by `digest_of` the edges of a volume, the rows of those that it was trained on, (T,)
    int64, and their out-of-bag scores, (T,).
    """

    forest: Forest
    names: tuple[str, ...]
    trained: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def scores(self, edges: np.ndarray, table: EdgeTable) -> np.ndarray:
        """The probability of different objects, (E,) float32, of the edges (E, 2) of a volume.

        Edges that it was trained on get their out-of-bag scores. DataError for other features.
        """
        if table.names != self.names:
            different = sorted(set(table.names) ^ set(self.names)) or ["their order"]
            raise DataError(
                f"the classifier of edges has other features than these fragments: "
                f"{', '.join(different)}; all volumes need predictions of the same network"
            )
        scores = self.forest.scores(table.values)
        rows, out_of_bag = self.trained.get(
            digest_of(edges, table), (np.empty(0, int), np.empty(0))
        )
        if rows.max(initial=-1) >= len(scores):
            raise DataError(f"the classifier has out-of-bag scores of other edges; {AGAIN}")
        scores[rows] = out_of_bag
        return scores.astype(np.float32)


def digest_of(edges: np.ndarray, table: EdgeTable) -> str:
    """What identifies the edges (E, 2) of a volume, and their features."""
    found = hashlib.sha256(np.ascontiguousarray(edges, np.uint64).data)
    found.update(np.ascontiguousarray(table.values).data)
    return found.hexdigest()


def save_classifier(path: Path, classifier: EdgeClassifier) -> None:
    """Writes `classifier` as safetensors; equal content, equal bytes."""
    import torch

    from retrace.checkpoints.safetensors import save_tensors

    arrays = {name: getattr(classifier.forest, name) for name in ARRAYS}
    for index, (rows, scores) in enumerate(classifier.trained.values()):
        arrays |= {f"rows_{index}": rows, f"out_of_bag_{index}": scores}
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in sorted(arrays.items())
    }
    content = {"features": list(classifier.names), "volumes": list(classifier.trained)}
    save_tensors(path, tensors, content)


def read_classifier(path: Path) -> EdgeClassifier:
    """The classifier in a file; DataError where it is absent, damaged or impossible."""
    from retrace.checkpoints.safetensors import read_archive

    metadata, tensors = read_archive(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        names = tuple(str(name) for name in metadata["features"])
        forest = Forest(**{name: arrays[name] for name in ARRAYS})
        check_forest(forest, len(names))
        volumes = enumerate(metadata["volumes"])
        trained = {v: (arrays[f"rows_{i}"], arrays[f"out_of_bag_{i}"]) for i, v in volumes}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no classifier of edges: {error}; {AGAIN}") from error
    for rows, scores in trained.values():
        _check_trained(path, rows, scores)
    return EdgeClassifier(forest, names, trained)


def _check_trained(path: Path, rows: np.ndarray, scores: np.ndarray) -> None:
    fits = rows.shape == scores.shape and rows.ndim == 1 and rows.dtype == np.int64
    if not (fits and (rows >= 0).all() and ((scores >= 0) & (scores <= 1)).all()):
        raise DataError(f"{path}: its out-of-bag scores do not fit their edges; {AGAIN}")
