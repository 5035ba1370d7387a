"""Places the boxes of a graph in rows and its edges between them (Sugiyama, Tagawa, Toda 1981).

An edge over several rows passes each of them at a place of its own, where no box is. So no box
hides an edge.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import networkx as nx
import numpy as np

SWEEPS = 12
"""How often rows are sorted by their neighbours, and how often places are evened out."""
Edge = tuple[str, str]


@dataclass(frozen=True)
class Spacing:
    """Widths of a box and of an edge that passes a row, and the gap between two of them, pixels."""

    box: float
    gap: float
    edge: float


@dataclass(frozen=True)
class Layout:
    """The row and the middle of each box, and of each edge the places where it passes rows."""

    row: dict[str, int]
    middle: dict[str, float]
    passes: dict[Edge, list[tuple[int, float]]]
    """By edge its (row, place along the row) from begin to end, those of its boxes included."""


def layered(edges: Sequence[Edge], spacing: Spacing) -> Layout:
    """The layout of a graph; an edge that closes a circle points upwards."""
    graph = _without_circles(edges)
    row = {n: i for i, nodes in enumerate(nx.topological_generations(graph)) for n in nodes}
    chains = {edge: _chain(edge, row) for edge in dict.fromkeys(edges) if edge[0] != edge[1]}
    links = nx.Graph()
    links.add_nodes_from(row)
    for chain in chains.values():
        nx.add_path(links, chain)
    rows = _sorted_rows(links, [*row], row)
    place = _places(links, rows, spacing)
    passes = {edge: [(_row(n, row), place[n]) for n in chain] for edge, chain in chains.items()}
    return Layout(row, {name: place[name] for name in row}, passes)


def _without_circles(edges: Sequence[Edge]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for before, after in edges:
        graph.add_nodes_from((before, after))
        if before != after and not nx.has_path(graph, after, before):
            graph.add_edge(before, after)
    return graph


def _chain(edge: Edge, row: dict[str, int]) -> list[Hashable]:
    """The begin of an edge, (edge, row) for each row that it passes, and its end."""
    begin, end = row[edge[0]], row[edge[1]]
    step = 1 if end > begin else -1
    return [edge[0], *((edge, number) for number in range(begin + step, end, step)), edge[1]]


def _row(node: Hashable, row: dict[str, int]) -> int:
    return row[node] if isinstance(node, str) else int(node[1])  # type: ignore[index]


def _sorted_rows(
    links: nx.Graph[Hashable], names: Sequence[str], row: dict[str, int]
) -> list[list[Hashable]]:
    """The nodes of each row in the order with the fewest crossings of all that were tried."""
    rows: list[list[Hashable]] = [[] for _ in range(max(row.values()) + 1)]
    for node in links:
        rows[_row(node, row)].append(node)
    best, fewest = [list(nodes) for nodes in rows], _crossings(links, rows)
    for sweep in range(SWEEPS):
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for number in order:
            neighbours = rows[number - 1 if sweep % 2 == 0 else number + 1]
            rows[number] = _by_neighbours(links, rows[number], neighbours)
        if (crossings := _crossings(links, rows)) < fewest:
            best, fewest = [list(nodes) for nodes in rows], crossings
    return best


def _by_neighbours(
    links: nx.Graph[Hashable], nodes: Sequence[Hashable], neighbours: Sequence[Hashable]
) -> list[Hashable]:
    """Nodes of a row by the mean position of their neighbours in the row next to it."""
    position = {node: index for index, node in enumerate(neighbours)}

    def mean(index: int) -> float:
        near = [position[n] for n in links[nodes[index]] if n in position]
        return float(np.mean(near)) if near else float(index)

    return [nodes[index] for index in sorted(range(len(nodes)), key=mean)]


def _crossings(links: nx.Graph[Hashable], rows: Sequence[Sequence[Hashable]]) -> int:
    crossings = 0
    for upper, lower in pairwise(rows):
        position = {node: index for index, node in enumerate(lower)}
        ends = [
            (index, position[other])
            for index, node in enumerate(upper)
            for other in links[node]
            if other in position
        ]
        crossings += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(ends, 2))
    return crossings


def _places(
    links: nx.Graph[Hashable], rows: Sequence[Sequence[Hashable]], spacing: Spacing
) -> dict[Hashable, float]:
    """The middle of each node along its row, near the middle of its neighbours; from 0."""
    place: dict[Hashable, float] = {}
    for nodes in rows:
        place.update(zip(nodes, _apart([0.0] * len(nodes), nodes, spacing), strict=True))
    for sweep in range(2 * SWEEPS):
        for nodes in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [
                float(np.mean([place[n] for n in links[node]] or [place[node]])) for node in nodes
            ]
            place.update(zip(nodes, _apart(wanted, nodes, spacing), strict=True))
    left = min(place[n] - _width(n, spacing) / 2 for n in place)
    return {node: value - left for node, value in place.items()}


def _apart(wanted: Sequence[float], nodes: Sequence[Hashable], spacing: Spacing) -> list[float]:
    """Places near the wanted ones that keep the order and the distances of a row."""
    distances = [
        (_width(a, spacing) + _width(b, spacing)) / 2 + spacing.gap for a, b in pairwise(nodes)
    ]
    offsets = np.concatenate([[0.0], np.cumsum(distances)])
    free = np.array(wanted) - offsets
    # Without offsets the places must not decrease: between the bounds from both sides.
    from_left = np.maximum.accumulate(free)
    from_right = np.minimum.accumulate(free[::-1])[::-1]
    return [float(value) for value in (from_left + from_right) / 2 + offsets]


def _width(node: Hashable, spacing: Spacing) -> float:
    return spacing.box if isinstance(node, str) else spacing.edge
