"""Speed of the MALIS weights, compared with a pure-Python union-find, on one training block.

    python benchmarks/malis.py                      # 24 x 56 x 56 voxels of generated tissue
    python benchmarks/malis.py --shape 48 56 56     # the zebra finch's block

Both compute the two passes on the same affinities, one after the other; the results are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.losses.malis import edge_ends, malis_weights  # noqa: E402
from retrace.synthetic.neurites import generate_neurites
from retrace.targets.affinities import affinities as affinities_of  # noqa: E402

NEIGHBORHOOD = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
VOXEL_SIZE_NM = (20, 9, 9)


def plain_pass(
    affs: np.ndarray, counted: np.ndarray, equal: bool, labels: np.ndarray
) -> np.ndarray:
    """One pass with lists and dictionaries, trees joined small to large."""
    ends = edge_ends(affs.shape[1:], NEIGHBORHOOD).ravel()
    edges = np.flatnonzero(ends >= 0)
    edges = edges[np.argsort(-affs.ravel()[edges], kind="stable")]
    flat = labels.ravel().tolist()
    parent = list(range(len(flat)))
    counts = [Counter({label: 1}) if label else Counter() for label in flat]
    weights = np.zeros(affs.size)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for edge in edges.tolist():
        a, b = root(edge % len(flat)), root(int(ends[edge]))
        if a == b:
            continue
        if len(counts[a]) < len(counts[b]):
            a, b = b, a
        same = sum(n * counts[a][label] for label, n in counts[b].items())
        total = sum(counts[a].values()) * sum(counts[b].values())
        weights[edge] = same if equal else total - same
        counts[a].update(counts[b])
        parent[b] = a
    weights *= counted.ravel()
    return (weights / (weights.sum() or 1)).reshape(affs.shape)


def plain(affs: np.ndarray, target: np.ndarray, labels: np.ndarray) -> np.ndarray:
    negative = plain_pass(np.where(target, 1, affs), ~target, False, labels)
    return negative + plain_pass(np.where(~target, 0, affs), target, True, labels)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(24, 56, 56), help="z y x")
    args = parser.parse_args(argv)
    labels = generate_neurites(args.shape, VOXEL_SIZE_NM, seed=0)[1].astype(np.int64)
    target = affinities_of(torch.from_numpy(labels), NEIGHBORHOOD).numpy() > 0
    noise = np.random.default_rng(0).normal(0, 0.25, target.shape)
    affs = (0.2 + 0.6 * target + noise).clip(0, 1).astype(np.float32)
    known = np.ones_like(target)
    malis_weights(
        affs[:, :4, :4, :4],
        target[:, :4, :4, :4],
        known[:, :4, :4, :4],
        labels[:4, :4, :4],
        NEIGHBORHOOD,
    )
    begin = time.perf_counter()
    ours = malis_weights(affs, target, known, labels, NEIGHBORHOOD)
    middle = time.perf_counter()
    theirs = plain(affs, target, labels)
    end = time.perf_counter()
    edges = int((edge_ends(affs.shape[1:], NEIGHBORHOOD) >= 0).sum())
    print(f"{labels.size} voxels, {edges} edges, {len(np.unique(labels))} labels, both passes")
    print(
        f"compiled      {middle - begin:8.3f} s   {2 * edges / (middle - begin) / 1e6:.2f} Medges/s"
    )
    print(f"pure Python   {end - middle:8.3f} s   {2 * edges / (end - middle) / 1e6:.2f} Medges/s")
    print(f"ratio         {(end - middle) / (middle - begin):8.1f}")
    print(f"largest difference of a weight {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()
