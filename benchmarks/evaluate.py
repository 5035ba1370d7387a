"""Prints how fast segmentations are scored: counting per second, a threshold curve, memory.

    python benchmarks/evaluate.py [--edge 256] [--threads 1]

A volume of cells of 16^3 voxels is scored against cells of 40^3 voxels; scikit-image on the same
arrays, held in memory, is the comparison.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.metrics import contingency_table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.evaluation.counting import count_volumes
from retrace.evaluation.curve import threshold_curve
from retrace.evaluation.ground_truth import GroundTruth
from retrace.segmentation.region_graph import RegionGraph
from retrace.storage.chunk_edges import CHUNK_SHAPE
from retrace.storage.volumes import Volume, open_volume
from retrace.storage.zarr_writer import create_volume

VOXEL = (10, 10, 10)


def cells(edge: int, cell: int) -> np.ndarray:
    """Labels of a cube of `edge` voxels cut into cubes of `cell` voxels, shape (edge,) * 3."""
    index = np.arange(edge, dtype=np.uint64) // np.uint64(cell)
    count = index[-1] + np.uint64(1)
    z, y, x = np.ix_(index, index, index)
    return np.asarray((z * count + y) * count + x + np.uint64(1))


def stored(folder: Path, name: str, data: np.ndarray) -> Volume:
    """The array as a zarr volume in `folder`."""
    place = {"voxel_size_nm": VOXEL, "offset_nm": (0, 0, 0)}
    store = folder / "volumes.zarr"
    created = create_volume(
        store, name, shape=data.shape, chunks=CHUNK_SHAPE, dtype=data.dtype, **place
    )
    created[:] = data
    return open_volume(store, name)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The median time of `work`."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def random_graph(fragments: np.ndarray) -> RegionGraph:
    """Three edges per fragment with scores spread over [0, 1]."""
    random = np.random.default_rng(0)
    other = random.permutation(fragments)
    edges = np.stack([np.tile(fragments, 3), np.concatenate([other, other[::-1], fragments[::-1]])])
    return RegionGraph(edges.T, random.random(edges.shape[1]).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=256, help="voxels along each side")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    fragments, labels = cells(args.edge, 16), cells(args.edge, 40)
    with tempfile.TemporaryDirectory() as name:
        segmentation = stored(Path(name), "fragments", fragments)
        ground_truth = GroundTruth(stored(Path(name), "labels", labels))
        counted = count_volumes(segmentation, ground_truth, threads=args.threads)
        ours = seconds(lambda: count_volumes(segmentation, ground_truth, threads=args.threads))
    graph = random_graph(np.unique(fragments))
    thresholds = [index / 50 for index in range(50)]
    curve = seconds(lambda: threshold_curve(counted.table, graph, thresholds), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plain = seconds(lambda: contingency_table(labels.astype(int), fragments.astype(int)))
    million = args.edge**3 / 1e6
    pairs, edges = counted.table.counts.size, len(graph.edges)
    print(f"counting from zarr, {args.threads} threads: {million / ours:8.1f} Mvoxel/s")
    print(f"scikit-image, in memory:      {million / plain:8.1f} Mvoxel/s")
    print(f"50 thresholds, {pairs} pairs, {edges} edges: {curve:.2f} s")
    print(f"peak memory {peak:.0f} MB, of which the arrays made here {2 * million * 8:.0f} MB")


if __name__ == "__main__":
    main()
