"""Trees that grow together (union-find): the one step that every joining of things shares."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True)
def root(parent: np.ndarray, node: int) -> int:
    """The root of `node` in `parent` (N,); every second step of the way is shortened."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
