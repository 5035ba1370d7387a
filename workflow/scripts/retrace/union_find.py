"""Union-find: components in an array of parents."""

from __future__ import annotations

import numpy as np

from retrace.compiled import compiled


@compiled
def root(parent: np.ndarray, node: int) -> int:
    """The root of `node` in `parent` (N,); shortens the path on the way (path halving)."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def join(parent: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Joins the components of first[i] and second[i], both (E,); the smaller root stays root."""
    for edge in range(len(first)):
        a, b = root(parent, first[edge]), root(parent, second[edge])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@compiled
def flatten(parent: np.ndarray) -> None:
    """Makes the parent of each node its root, where `join` made all parents."""
    # A parent is never larger than its child, so it is final when the child is reached.
    for node in range(len(parent)):
        parent[node] = parent[parent[node]]
