"""The multicut of a graph: which edges join, so that the weights of joined edges sum up highest."""

from __future__ import annotations

import numpy as np

LEAST, MOST = 0.005, 0.995
"""Probabilities count as at least and at most this: no single edge decides alone."""


def attraction(scores: np.ndarray, faces: np.ndarray, threshold: float) -> np.ndarray:
    """Weights (E,) of edges: above 0 they attract, below 0 they repel.

    `scores` (E,): the probability that the two fragments belong to different objects. Log-odds
    against those of `threshold`, in (0, 1), at which an edge has no weight, times the square root
    of its `faces` (E,): neighbouring faces say nearly the same.
    """
    return (_log_odds(threshold) - _log_odds(scores)) * np.sqrt(faces)


def _log_odds(probability: np.ndarray | float) -> np.ndarray:
    within = np.clip(np.asarray(probability, np.float64), LEAST, MOST)
    return np.log(within / (1 - within))


def joined_edges(nodes: int, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which edges (E,) bool have both ends in one part of the multicut of a graph.

    `ends` (E, 2): nodes from 0, u < v, sorted, each pair once; `weights` (E,). Solved by greedy
    additive contraction (Keuper et al. 2015), then improved by Kernighan-Lin moves. Deterministic.
    """
    from bioimage_cpp.graph import UndirectedGraph
    from bioimage_cpp.graph import multicut as solvers

    if not len(ends):
        return np.zeros(0, bool)
    graph = UndirectedGraph.from_unique_edges(nodes, np.ascontiguousarray(ends, np.uint64))
    objective = solvers.MulticutObjective(graph, np.ascontiguousarray(weights, np.float64))
    solvers.GreedyAdditiveMulticut().optimize(objective)
    part = np.asarray(solvers.KernighanLinMulticut().optimize(objective))
    return np.asarray(part[ends[:, 0]] == part[ends[:, 1]])
