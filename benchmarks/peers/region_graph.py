"""Edges between fragments with their merge scores, as the lsd repository computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import side_by_side
from inputs import affinities, cells
from side_by_side import Comparison, Contender, Work

MERGE_FUNCTION = "hist_quant_75"
WATERZ_FUNCTION = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>"


def make(folder: Path) -> None:
    side_by_side.ours()
    import numpy as np

    from retrace.segmentation.fragments import renumber, watershed_fragments

    given = affinities(cells())
    np.save(folder / "affinities.npy", given)
    np.save(folder / "fragments.npy", renumber(watershed_fragments(given, in_xy=False)))


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np

    from retrace.segmentation.agglomerate import region_graph

    given, fragments = (np.load(folder / f"{n}.npy") for n in ("affinities", "fragments"))

    def work() -> Any:
        edges, scores = region_graph(given, fragments, MERGE_FUNCTION)
        return np.column_stack([edges, scores])

    return work


def lsd_merge_tree() -> Any:
    """The class MergeTree of lsds, without its package, which needs an older scikit-image."""
    import sys
    import types

    import lsd

    post = types.ModuleType("lsd.post")
    post.__path__ = [str(Path(lsd.__file__).parent / "post")]
    sys.modules["lsd.post"] = post
    from lsd.post.merge_tree import MergeTree

    MergeTree.node = property(lambda tree: tree.nodes)  # its name before networkx 2.4
    return MergeTree


def as_lsd(folder: Path) -> Work:
    """lsd.post.agglomerate: waterz's history of merges becomes a tree, which scores the edges."""
    import networkx
    import numpy as np
    import waterz

    merge_tree = lsd_merge_tree()
    given, fragments = (np.load(folder / f"{n}.npy") for n in ("affinities", "fragments"))

    def work() -> Any:
        steps = waterz.agglomerate(
            given,
            [0, 1.0],
            fragments=fragments.copy(),
            scoring_function=WATERZ_FUNCTION,
            discretize_queue=256,
            return_merge_history=True,
            return_region_graph=True,
        )
        _, _, initial = next(steps)
        graph = networkx.Graph()
        graph.add_edges_from((edge["u"], edge["v"]) for edge in initial)
        _, history, _ = next(steps)
        list(steps)
        tree = merge_tree(np.unique(fragments[fragments > 0]))
        for merge in history:
            tree.merge(merge["a"], merge["b"], merge["c"], merge["score"])
        scored = [(min(u, v), max(u, v), tree.find_merge(u, v)) for u, v in graph.edges]
        lines = [(u, v, np.nan if score is None else score) for u, v, score in sorted(scored)]
        return np.array(lines)

    return work


def difference(ours: Any, theirs: Any) -> str:
    import numpy as np

    if not np.array_equal(ours[:, :2], theirs[:, :2]):
        return f"other edges: {len(ours)} and {len(theirs)}"
    away = np.abs(np.nan_to_num(ours[:, 2], nan=2) - np.nan_to_num(theirs[:, 2], nan=2))
    return f"same {len(ours)} edges, scores {away.max():.1e} at most"


COMPARISON = Comparison(
    file=__file__,
    title="region graph with scores, 64 × 128 × 128 voxels",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender(
            "waterz 0.10.1, lsds 0.1.3",
            as_lsd,
            ("waterz==0.10.1", "lsds==0.1.3", "zarr<3", "setuptools<81", "networkx"),
        ),
    ),
    amount=1.048576,
    unit="Mvoxel/s",
    difference=difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
