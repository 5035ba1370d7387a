"""Time and memory of the one step over a whole volume: fragments joined along their edges.

    python benchmarks/graph.py                       # 1, 10 and 100 million edges
    python benchmarks/graph.py --edges 100000000

The graph is generated: blocks of 4096 fragments, three edges from each fragment to ones near it, in
its block or the next, scores evenly spread. `segment.py join` then runs in a new process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from retrace.progress import progress  # noqa: E402
from retrace.storage.manifest import write_manifest  # noqa: E402
from retrace.storage.zarr_writer import create_list, create_volume  # noqa: E402

BLOCK_SHAPE = (64, 64, 64)
FRAGMENTS = 4096
EDGES_EACH = 3
THRESHOLD = 0.2
BLOCKS_AT_ONCE = 64


def edges_of(blocks: range, last: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) of some blocks and their scores; no edge leaves the last block."""
    place = np.arange(blocks.start * FRAGMENTS, blocks.stop * FRAGMENTS)
    ends = np.sort(place[:, None] + rng.integers(1, FRAGMENTS // 8, (len(place), EDGES_EACH)), 1)
    ends = np.minimum(ends, last)
    pairs = np.stack([np.repeat(place, EDGES_EACH), ends.ravel()], 1)
    per_block = int(np.prod(BLOCK_SHAPE))
    ids = pairs // FRAGMENTS * per_block + pairs % FRAGMENTS + 1
    return ids.astype(np.uint64), rng.random(len(ids), dtype=np.float32)


def generate(store: Path, edges: int) -> int:
    """A store with the arrays of `fragments.zarr`, its voxels left out; returns its edges."""
    blocks = max(2, edges // (FRAGMENTS * EDGES_EACH))
    array = create_volume(
        store,
        "fragments",
        shape=(BLOCK_SHAPE[0] * blocks, *BLOCK_SHAPE[1:]),
        chunks=BLOCK_SHAPE,
        dtype=np.uint64,
        voxel_size_nm=(8, 8, 8),
        offset_nm=(0, 0, 0),
    )
    array.attrs["block_shape"] = list(BLOCK_SHAPE)
    group = zarr.open_group(store, mode="r+")
    total = blocks * FRAGMENTS * EDGES_EACH
    create_list(group, "counts", (blocks,), np.int64)[:] = FRAGMENTS
    pairs = create_list(group, "edges", (total, 2), np.uint64)
    scores = create_list(group, "scores", (total,), np.float32)
    rng = np.random.default_rng(0)
    starts = range(0, blocks, BLOCKS_AT_ONCE)
    for start in progress(starts, len(starts), "generate", "parts"):
        some = range(start, min(start + BLOCKS_AT_ONCE, blocks))
        ids, values = edges_of(some, blocks * FRAGMENTS - 1, rng)
        begin = start * FRAGMENTS * EDGES_EACH
        pairs[begin : begin + len(ids)], scores[begin : begin + len(ids)] = ids, values
    write_manifest(store, inputs=[], settings={}, seconds=0)
    return total


def join(folder: Path) -> tuple[float, float, int]:
    """Seconds, peak memory in MB and number of segments of `segment.py join`."""
    (folder / "threshold.json").write_text(json.dumps({"threshold": THRESHOLD}))
    places = ["--fragments", "fragments.zarr", "--threshold-file", "threshold.json"]
    command = [sys.executable, str(SCRIPTS / "segment.py"), "join", *places]
    begin = time.perf_counter()
    subprocess.run([*command, "--output", "lut.zarr"], cwd=folder, check=True)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    segments = zarr.open_group(folder / "lut.zarr", mode="r")["segments"]
    return seconds, peak, len(np.unique(np.asarray(segments)))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    args = parser.parse_args(argv)
    for edges in args.edges:
        with tempfile.TemporaryDirectory() as folder:
            total = generate(Path(folder) / "fragments.zarr", edges)
            seconds, peak, segments = join(Path(folder))
        print(
            f"{total / 1e6:.1f} million edges, {total // EDGES_EACH / 1e6:.2f} million fragments: "
            f"{seconds:.1f} s, peak {peak:.0f} MB, {segments} segments",
            flush=True,
        )


if __name__ == "__main__":
    main()
