"""Union-find: the root of a node in an array of parents."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True)
def root(parent: np.ndarray, node: int) -> int:
    """The root of `node` in `parent` (N,); shortens the path on the way (path halving)."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
