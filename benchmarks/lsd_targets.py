"""Speed of LSD targets, compared with lsd-lite and the original `lsds` package.

    python benchmarks/lsd_targets.py                   # labels of the FIB-25 sample
    python benchmarks/lsd_targets.py LABELS.h5 --lsds-python /path/to/venv/bin/python

The interpreter of --lsds-python needs `pip install lsds==0.1.3 "zarr<3"`. Each program runs on the
same voxels, one after the other: sigma 80 nm, downsampling 2 by default. Ours runs
`--repeats` times after a first run, and the fastest counts; the others, tens of seconds, run once.
Seconds are wall clock; CPU seconds show whether other programs kept the machine busy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.targets.lsds import compute_lsds  # noqa: E402

SAMPLE = Path("../shared/data/fib25/training_sample2_z000-124.h5")
ORIGINAL = """
import sys, time
import numpy as np
import gunpowder as gp
from lsd.train.local_shape_descriptor import LsdExtractor
with np.load(sys.argv[1]) as given:
    labels, size, sigma = given["labels"], given["voxel_size_nm"], float(given["sigma_nm"])
    downsample = int(given["downsample"])
size = gp.Coordinate(int(s) for s in size)
begin = time.perf_counter(), time.process_time()
extractor = LsdExtractor((sigma,) * 3, downsample=downsample)
lsds = extractor.get_descriptors(labels, voxel_size=size)
seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
np.savez(sys.argv[2], seconds=seconds, lsds=lsds)
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "labels", type=Path, nargs="?", default=SAMPLE, help="h5 file with label ids (z, y, x)"
    )
    parser.add_argument("--array", default="labels_gt")
    parser.add_argument("--shape", type=int, nargs=3, default=(124, 152, 152), help="voxels z y x")
    parser.add_argument("--voxel-size-nm", type=int, nargs=3, default=(8, 8, 8))
    parser.add_argument("--sigma-nm", type=float, default=80)
    parser.add_argument("--downsample", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours")
    parser.add_argument("--threads", type=int, help="threads of torch (all cores)")
    parser.add_argument("--device", default="cpu", help="where ours runs: cpu or cuda")
    parser.add_argument("--lsds-python", type=Path, help="interpreter that has the lsds package")
    parser.add_argument("--no-lsd-lite", action="store_true", help="leave lsd-lite out")
    return parser.parse_args(argv)


class Seconds(NamedTuple):
    """Of one run, by the clock and by the processors."""

    wall: float
    cpu: float


def fastest(run: Callable[[], Any], repeats: int) -> tuple[Seconds, Any]:
    """Time of the fastest run and what it computed."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter(), time.process_time()
        result = run()
        seconds.append(Seconds(time.perf_counter() - begin[0], time.process_time() - begin[1]))
    return min(seconds), result


def ours(labels: np.ndarray, args: argparse.Namespace) -> tuple[Seconds, np.ndarray]:
    on_device = torch.from_numpy(labels).to(args.device)

    def run() -> torch.Tensor:
        result = compute_lsds(on_device, args.voxel_size_nm, args.sigma_nm, args.downsample)
        if result.is_cuda:  # as in training: the copy to the device is not part of the time
            torch.cuda.synchronize()
        return result

    seconds, result = fastest(run, args.repeats + 1)
    return seconds, result.cpu().numpy()


def lsd_lite(labels: np.ndarray, args: argparse.Namespace) -> tuple[Seconds, np.ndarray]:
    from lsd_lite import get_lsds

    def run() -> np.ndarray:
        return get_lsds(labels, args.sigma_nm, args.voxel_size_nm, downsample=args.downsample)

    return fastest(run, 1)


def original(labels: np.ndarray, args: argparse.Namespace) -> tuple[Seconds, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, result = Path(folder, "given.npz"), Path(folder, "result.npz")
        np.savez(
            inputs,
            labels=labels,
            voxel_size_nm=args.voxel_size_nm,
            sigma_nm=args.sigma_nm,
            downsample=args.downsample,
        )
        subprocess.run([args.lsds_python, "-c", ORIGINAL, inputs, result], check=True)
        with np.load(result) as arrays:
            return Seconds(*arrays["seconds"].tolist()), arrays["lsds"]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    with h5py.File(args.labels) as file:
        box = tuple(slice(0, size) for size in args.shape)
        labels = file[args.array][box].astype(np.int64)
    programs = {f"retrace, {args.device}": ours}
    if not args.no_lsd_lite:
        programs["lsd-lite"] = lsd_lite
    if args.lsds_python:
        programs["lsds 0.1.3"] = original
    print(
        f"{labels.shape} voxels, {len(np.unique(labels))} labels, sigma {args.sigma_nm} nm,", end=""
    )
    print(f" downsample {args.downsample}, {torch.get_num_threads()} threads for torch")
    head = ("seconds", "CPU s", "Mvoxel/s", "ours is", "mean |difference|")
    print(f"{'program':<16}{head[0]:>9}{head[1]:>8}{head[2]:>10}{head[3]:>9}{head[4]:>20}")
    fast, expected = None, None
    for name, program in programs.items():
        seconds, result = program(labels, args)
        fast, expected = fast or seconds.wall, result if expected is None else expected
        print(
            f"{name:<16}{seconds.wall:>9.2f}{seconds.cpu:>8.2f}"
            f"{labels.size / seconds.wall / 1e6:>10.3f}{seconds.wall / fast:>8.1f}x"
            f"{np.abs(result - expected).mean():>20.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
