"""Speed and memory of the steps of a segmentation, old and new, in turn on the same affinities.

    python benchmarks/segment.py                       # a generated volume of 64 x 160 x 160 voxels
    python benchmarks/segment.py --fib25 training_sample2_z000-124.h5
    python benchmarks/segment.py --in-xy

"Old" is what the programs did before, kept here: scipy's distances, scikit-image's watershed, and
waterz with its lists of Python objects. Each step takes the result of the one before it; results
must be equal. Times are of the processor, of one thread. Peak memory is that of a new process which
does one step of one kind.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fastremap
import h5py
import numpy as np
import waterz
from scipy import ndimage
from skimage.segmentation import watershed

from machine import alternating, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.segmentation.agglomerate import region_graph
from retrace.segmentation.fragments import (
    SEED_DISTANCE,
    compact_ids,
    renumber,
    watershed_fragments,
)
from retrace.segmentation.lut import segment_lut
from retrace.synthetic.neurites import generate_neurites

SCORE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>"
VOXEL_SIZE_NM = (10, 10, 10)
THRESHOLD = 0.3


def affinities_of(labels: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Affinities (3, Z, Y, X) uint8 like those of a small network: blurred borders of `labels`,
    weak where raw is dark, and noise."""
    rng = np.random.default_rng(0)
    bright = ndimage.gaussian_filter(raw.astype(np.float32), 1)
    low, high = np.percentile(bright, [2, 60])
    result = np.empty((3, *labels.shape), np.uint8)
    for axis in range(3):
        same = np.ones(labels.shape, np.float32)
        inner = np.moveaxis(same, axis, 0)
        moved = np.moveaxis(labels, axis, 0)
        inner[1:] = moved[1:] == moved[:-1]
        value = ndimage.gaussian_filter(same, 1.2) * np.clip((bright - low) / (high - low), 0.3, 1)
        result[axis] = 255 * np.clip(value + rng.normal(0, 0.08, labels.shape), 0, 1)
    return result


def volume(fib25: Path | None, shape: Sequence[int]) -> np.ndarray:
    """The affinities to segment."""
    if fib25 is None:
        raw, labels = generate_neurites(shape, VOXEL_SIZE_NM, seed=0)
        return affinities_of(labels, raw)
    box = tuple(slice(0, edge) for edge in shape)
    with h5py.File(fib25) as file:
        return affinities_of(np.asarray(file["labels_overseg_sv"][box]), file["raw"][box])


# ---------------------------------------------------------------- as the programs did before


def old_flood(inside: np.ndarray) -> np.ndarray:
    distance = ndimage.distance_transform_edt(inside)
    seeds, _ = ndimage.label(ndimage.maximum_filter(distance, SEED_DISTANCE) == distance)
    return np.asarray(watershed(distance.max() - distance, seeds).astype(np.uint64))


def old_fragments(affinities: np.ndarray, in_xy: bool) -> np.ndarray:
    mean = np.mean(affinities[1:3] if in_xy else affinities[:3], axis=0, dtype=np.float32)
    if not in_xy:
        return old_flood(mean > 127.5)
    fragments, last = np.empty(mean.shape, np.uint64), 0
    for z, section in enumerate(mean):
        fragments[z] = old_flood(section > 127.5) + np.uint64(last)
        last = int(fragments[z].max())
    return fragments


@contextmanager
def silent() -> Iterator[None]:
    """waterz prints from Python and from C++."""
    kept = os.dup(1)
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def old_merge_tree(history: list[dict[str, Any]], largest: int) -> tuple[np.ndarray, np.ndarray]:
    parent, root = np.arange(largest + 1), list(range(largest + 1))
    attached, size = np.full(largest + 1, len(history)), [1] * (largest + 1)
    for number, merge in enumerate(history):
        large, small = root[merge["a"]], root[merge["b"]]
        if size[large] < size[small]:
            large, small = small, large
        parent[small], attached[small] = large, number
        size[large] += size[small]
        root[merge["c"]] = large
    return parent, attached


def old_scores(history: list[dict[str, Any]], edges: np.ndarray, largest: int) -> np.ndarray:
    parent, attached = old_merge_tree(history, largest)
    u, v = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
    met_at, apart = np.full(len(edges), -1), u != v
    while apart.any():
        first = np.minimum(attached[u], attached[v])
        met_at[apart] = first[apart]
        apart &= first < len(history)
        step_u = apart & (attached[u] == first)
        step_v = apart & (attached[v] == first) & ~step_u
        u[step_u], v[step_v] = parent[u[step_u]], parent[v[step_v]]
        apart &= u != v
    return np.array([*(merge["score"] for merge in history), np.nan], np.float32)[met_at]


def old_edges(affinities: np.ndarray, fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids, compact = np.unique(fragments, return_inverse=True)
    compact = compact.reshape(fragments.shape).astype(np.uint64) + np.uint64(ids[0] != 0)
    scaled = affinities[:3].astype(np.float32)
    scaled /= 255
    with silent():
        (_, _, contacts), (_, history, _) = waterz.agglomerate(
            scaled,
            [-1.0, 1.0],
            fragments=compact.copy(),
            scoring_function=SCORE,
            discretize_queue=256,
            return_merge_history=True,
            return_region_graph=True,
        )
    pairs = [(min(c["u"], c["v"]), max(c["u"], c["v"])) for c in contacts]
    edges = np.unique(np.array(pairs, np.uint64).reshape(-1, 2), axis=0)
    return edges, old_scores(history, edges, int(compact.max()))


# ---------------------------------------------------------------- steps


def new_edges(affinities: np.ndarray, fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return region_graph(affinities, compact_ids(fragments)[1], "hist_quant_75")


def joined(edges: np.ndarray, scores: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    ids = np.arange(int(fragments.max()) + 1, dtype=np.uint64)
    return segment_lut(edges, scores, THRESHOLD, ids)[fragments.astype(np.int64)]


@dataclass(frozen=True)
class Step:
    name: str
    new: Callable[[], Any]
    old: Callable[[], Any] | None


def steps(affinities: np.ndarray, in_xy: bool) -> list[Step]:
    """The steps, each with the result of the one before it."""
    fragments = renumber(watershed_fragments(affinities, in_xy=in_xy))
    edges, scores = new_edges(affinities, fragments)
    return [
        Step(
            "fragments",
            lambda: watershed_fragments(affinities, in_xy=in_xy),
            partial(old_fragments, affinities, in_xy),
        ),
        Step("numbers", lambda: fastremap.renumber(fragments)[0], None),
        Step(
            "edges",
            partial(new_edges, affinities, fragments),
            partial(old_edges, affinities, fragments),
        ),
        Step("join and relabel", partial(joined, edges, scores, fragments), None),
    ]


def check_equal(step: Step) -> None:
    if step.old is not None:
        for new, old in zip(_parts(step.new()), _parts(step.old()), strict=True):
            np.testing.assert_array_equal(new, old)


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def peak_memory(args: argparse.Namespace, affinities: Path, step: str, kind: str) -> float:
    """MB that a step adds, in a process of its own, to what it began with."""
    command = [sys.executable, __file__, "--step", step, kind, "--affinities", str(affinities)]
    command += ["--in-xy"] if args.in_xy else []
    # Arrays that are no longer needed go back to the system at once, so they are not counted.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def one_step(args: argparse.Namespace) -> None:
    name, kind = args.step
    (step,) = (s for s in steps(np.load(args.affinities), args.in_xy) if s.name == name)
    work = step.new if kind == "new" or step.old is None else step.old
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again here
    before = resident("VmRSS")
    work()
    print(resident("VmHWM") - before)


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def rows(args: argparse.Namespace, affinities: np.ndarray, file: Path) -> Iterator[list[str]]:
    million = affinities[0].size / 1e6
    for step in steps(affinities, args.in_xy):
        check_equal(step)
        works = {"new": step.new} | ({"old": step.old} if step.old else {})
        timings = alternating(works, args.rounds, clock=time.thread_time)
        cells = [step.name]
        for kind in ("old", "new"):
            rate = f"{timings.rate(kind, million):.2f}" if kind in works else ""
            memory = f"{peak_memory(args, file, step.name, kind) / million:.0f}" if rate else ""
            cells += [rate, memory]
        ratio = f"{timings.times_as_fast('new', 'old'):.2f}" if step.old else ""
        yield [*cells, ratio, f"{timings.took('new').median / million:.3f}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fib25", type=Path, help="file of the FIB-25 sample, for its labels")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 160, 160), help="z y x")
    parser.add_argument("--in-xy", action="store_true", help="fragments section by section")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--affinities", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        one_step(args)
        return
    affinities = volume(args.fib25, args.shape)
    inside = float((affinities.mean(0) > 127.5).mean())
    print(f"{affinities[0].size / 1e6:.2f} Mvoxel, {100 * inside:.0f} % inside, one thread")
    heading = ["step", "old, Mvoxel/s", "MB/Mvoxel", "new, Mvoxel/s", "MB/Mvoxel", "ratio"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "affinities.npy"
        np.save(file, affinities)
        print(table([*heading, "new, s/Mvoxel"], list(rows(args, affinities, file))))
    print(
        f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
