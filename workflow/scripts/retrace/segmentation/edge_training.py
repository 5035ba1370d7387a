"""Trains the classifier of edges: a random forest (Breiman 2001) on edges with known objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.segmentation.edge_classifier import LEAF, Forest

TREES = 200
LEAST_EDGES = 3
"""Edges in a leaf."""
MOST_EDGES = 50_000
"""Edges that each tree sees, drawn with replacement: larger trees cost time and space."""
SEED = 0


def train_forest(
    features: np.ndarray, different: np.ndarray, threads: int = 1
) -> tuple[Forest, np.ndarray]:
    """A forest and the out-of-bag scores (E,) of its edges.

    `features` (E, F) float32; `different` (E,) bool: whether the two fragments belong to different
    objects. Equal input gives equal trees, on any number of cores. DataError if all edges are of
    one kind.
    """
    if not len(different):
        raise DataError(
            "no edge of the validation entries lies between two fragments that are at least half "
            "labelled; give a larger validation entry, or segment with `segment: {method: "
            "hist_quant_75}`"
        )
    if different.all() or not different.any():
        kinds = "between different objects" if different.all() else "within objects"
        raise DataError(
            f"all {len(different)} labelled edges of the validation entries are {kinds}; a "
            "classifier needs edges of both kinds. Give a larger validation entry, or segment "
            "with `segment: {method: hist_quant_75}`"
        )
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=LEAST_EDGES,
        max_features="sqrt",
        max_samples=min(len(features), MOST_EDGES),
        oob_score=True,
        random_state=SEED,
        n_jobs=threads,
    ).fit(features, different)
    return _as_arrays(forest.estimators_), forest.oob_decision_function_[:, 1]


def _as_arrays(estimators: Sequence[Any]) -> Forest:
    trees = [estimator.tree_ for estimator in estimators]
    starts = np.append(0, np.cumsum([tree.node_count for tree in trees]))
    return Forest(
        starts,
        np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.int64),
        np.concatenate([tree.threshold for tree in trees]),
        _children([tree.children_left for tree in trees], starts),
        _children([tree.children_right for tree in trees], starts),
        np.concatenate([tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees]),
    )


def _children(of_trees: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """The children of all nodes as places in the arrays of all trees."""
    begins = zip(of_trees, starts, strict=False)
    return np.concatenate([np.where(c == LEAF, LEAF, c + begin) for c, begin in begins])
