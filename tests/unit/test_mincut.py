"""The min-cut metric on segments small enough to cut by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retrace.evaluation.mincut import MinCut, mincut
from retrace.evaluation.skeletons import Skeletons
from retrace.segmentation.region_graph import RegionGraph


def skeletons(*lengths: int) -> Skeletons:
    """Straight skeletons along x, 10 nm from node to node and 100 nm from each other."""
    position = [(0.0, 100.0 * row, 10.0 * at) for row, n in enumerate(lengths) for at in range(n)]
    owner = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    nodes = np.arange(len(owner))
    edges = np.stack([nodes[:-1], nodes[1:]], axis=1)[owner[:-1] == owner[1:]]
    return Skeletons(np.array(position), owner, edges)


def graph(*edges: tuple[int, int, float]) -> RegionGraph:
    pairs = np.array([edge[:2] for edge in edges], np.uint64).reshape(-1, 2)
    return RegionGraph(pairs, np.array([edge[2] for edge in edges], np.float32))


def fragments(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint64)


def test_perfect_segments_need_nothing() -> None:
    result = mincut(skeletons(3, 3), fragments(1, 1, 2, 3, 3, 3), graph((1, 2, 0.1)), 0.5)

    assert result == MinCut(0, 0, 0)


def test_one_wrong_edge_needs_one_split() -> None:
    """1-2 is one neuron, 3-4 the other; the weak edge 2-3 joins them."""
    rag = graph((1, 2, 0.1), (3, 4, 0.1), (2, 3, 0.4))
    nodes = fragments(1, 1, 2, 3, 4, 4)

    assert mincut(skeletons(3, 3), nodes, rag, 0.5) == MinCut(1, 0, 0)
    assert mincut(skeletons(3, 3), nodes, rag, 0.3) == MinCut(0, 0, 0)


def test_one_split_edge_counts_as_none_and_two_as_one() -> None:
    """As in the original: the broken edges of a split skeleton less one."""
    nodes = fragments(1, 2, 3)

    assert mincut(skeletons(3), nodes, graph((1, 2, 0.1)), 0.5) == MinCut(0, 0, 0)
    assert mincut(skeletons(3), nodes, graph((1, 2, 0.9)), 0.5) == MinCut(0, 1, 0)


def test_a_cut_through_a_skeleton_is_repaired() -> None:
    """1 hangs on the other neuron's 3 more than on its own 2: the cut parts 1 and 2."""
    rag = graph((1, 2, 0.45), (1, 3, 0.1))
    result = mincut(skeletons(3, 1), fragments(1, 2, 2, 3), rag, 0.5)

    assert result == MinCut(1, 0, 0)
    three = graph((1, 2, 0.45), (2, 4, 0.05), (1, 3, 0.1))
    # The closest nodes are those of 1 and 3: their one edge is the only way between them.
    assert mincut(skeletons(4, 1), fragments(1, 2, 4, 4, 3), three, 0.5) == MinCut(1, 0, 0)


def test_pieces_of_one_skeleton_are_joined_again() -> None:
    """Neuron A is 1 and 4, with B's 2 between them on the only path: one cut leaves 4 with B."""
    rag = graph((1, 2, 0.1), (2, 4, 0.1))
    bent = skeletons(2, 2)
    # B's node in 2 is nearer to A's node in 1 than to that in 4.
    bent.position_nm[:] = [[0, 0, 0], [0, 0, 90], [0, 10, 0], [0, 20, 0]]

    assert mincut(bent, fragments(1, 4, 2, 2), rag, 0.5) == MinCut(2, 1, 0)


def test_three_neurons_in_one_segment_need_two_splits() -> None:
    rag = graph((1, 2, 0.3), (2, 3, 0.3))

    assert mincut(skeletons(2, 2, 2), fragments(1, 1, 2, 2, 3, 3), rag, 0.5) == MinCut(2, 0, 0)


def test_the_cheapest_edges_are_cut() -> None:
    """A square: 1-2 strong, 3-4 strong, two weak edges between; one cut takes both weak ones."""
    rag = graph((1, 2, 0.05), (3, 4, 0.05), (1, 3, 0.45), (2, 4, 0.45))

    assert mincut(skeletons(2, 2), fragments(1, 2, 3, 4), rag, 0.5) == MinCut(1, 0, 0)


def test_a_fragment_of_two_neurons_cannot_be_split() -> None:
    rag = graph((1, 2, 0.1))

    assert mincut(skeletons(2, 2), fragments(1, 1, 1, 2), rag, 0.5) == MinCut(0, 0, 1)


def test_nodes_without_a_fragment_are_no_merger() -> None:
    assert mincut(skeletons(2, 2), fragments(0, 0, 0, 0), graph(), 0.5) == MinCut(0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_cuts_separate_every_pair(seed: int) -> None:
    """k neurons without shared fragments in one segment need at least k - 1 splits."""
    random = np.random.default_rng(seed)
    count = 12
    edges = [(int(a), int(b), 0.2) for a, b in random.integers(1, count + 1, (60, 2)) if a < b]
    chain = [(i, i + 1, 0.3) for i in range(1, count)]
    rag = graph(*dict.fromkeys(edges), *(e for e in chain if (*e[:2], 0.2) not in edges))
    nodes = fragments(*random.permutation(np.arange(1, count + 1)))
    result = mincut(skeletons(4, 4, 4), nodes, rag, 0.5)

    assert result.splits_needed >= 2
    assert result.unsplittable_fragments == 0
    assert result.merges_needed <= result.splits_needed
