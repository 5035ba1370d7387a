"""How time and memory grow with the volume, with cores and shards, and what a large volume takes.

    python benchmarks/scale.py volume      # four sizes, 64-fold: docs/images/scale.svg, a table
    python benchmarks/scale.py workers     # one size on 1 and 2 cores, in 1, 2 and 8 shards
    python benchmarks/scale.py jobs        # what a scheduler adds to each job; SLURM as root
    python benchmarks/scale.py planning    # Snakemake plans the zebra finch in many shards
    python benchmarks/scale.py plan --gpus 8 --cores 64 --rates rates.json

The volume is one phantom block, repeated; affinities are computed from its labels, blurred, with
noise, so that fragments and their graph are as dense everywhere as in tissue. Prediction
runs a network of the small kind with random weights, whose cost does not depend on them. Every step
is the workflow's own program in a new process; seconds and memory are from its manifest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import zarr
from scipy import ndimage

from sharded_run import SCRIPTS, ShardedRun

sys.path.insert(0, str(SCRIPTS))

from retrace.checkpoints.safetensors import save_model
from retrace.config.datasets import load_dataset
from retrace.config.networks import head_names, network_for
from retrace.geometry import VoxelBox, chunk_count
from retrace.inference.build import FILES_PER_JOB
from retrace.inference.tile_shape import shard_tile
from retrace.networks import build_network  # noqa: E402
from retrace.planning.rates import rate_of
from retrace.storage.chunk_edges import fragment_chunks, prediction_chunks
from retrace.storage.manifest import write_manifest
from retrace.storage.shard_grid import shard_edges
from retrace.storage.zarr_writer import LIST_CHUNK, create_volume
from retrace.synthetic.neurites import generate_neurites

ROOT = SCRIPTS.parent.parent
BLOCK = (32, 128, 128)
VOXEL_SIZE_NM = (20, 9, 9)
SEGMENT: dict[str, Any] = {
    "fragments_in_xy": True,
    "block_shape": list(BLOCK),
    "block_context": [12, 27, 27],
}
REPEATS = [(2, 1, 1), (2, 2, 2), (4, 4, 2), (8, 4, 4)]
"""Blocks along z, y, x of the four volumes: 1 to 64 times the first."""
WORKERS_VOLUME = REPEATS[1]
STEPS = ("predict", "fragments", "edges", "join", "apply", "assemble")
NEIGHBORS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))

BENCHMARK_ROI = (5300, 9300, 9700)
"""Voxels of the zebra finch's benchmark region: (106000, 83700, 87300) nm at (20, 9, 9) nm."""
PLANNED_BLOCK = (256, 512, 512)
"""`segment: block_shape` of the plan, as docs/how-to/large-volumes.md recommends."""


@dataclass(frozen=True)
class Cost:
    """Cost of all jobs of one step: seconds, and the largest peak memory in MB."""

    seconds: float = 0.0
    peak_mb: float = 0.0
    jobs: int = 0

    def __add__(self, manifest: dict[str, Any]) -> Cost:
        peak = max(self.peak_mb, manifest["peak_memory_mb"])
        return Cost(self.seconds + manifest["seconds"], peak, self.jobs + 1)


# ---------------------------------------------------------------- the volume


def block() -> tuple[np.ndarray, np.ndarray]:
    """Raw (Z, Y, X) and affinities (3, Z, Y, X) of one block, uint8."""
    raw, labels = generate_neurites(BLOCK, VOXEL_SIZE_NM, seed=0)
    random = np.random.default_rng(0)
    channels = []
    for offset in NEIGHBORS:
        same = (labels == np.roll(labels, [-o for o in offset], (0, 1, 2))).astype(np.float32)
        noisy = ndimage.gaussian_filter(same + random.normal(0, 0.6, BLOCK), (0.5, 1.5, 1.5))
        channels.append(np.clip(noisy * 255, 0, 255).astype(np.uint8))
    return raw, np.stack(channels)


def write(store: Path, name: str, data: np.ndarray, repeats: tuple[int, ...]) -> None:
    """`data` (..., Z, Y, X) repeated along its last axes, block by block, with a manifest."""
    shape = [s * r for s, r in zip(BLOCK, repeats, strict=True)]
    leading = data.shape[:-3]
    array = create_volume(
        store,
        name,
        shape=(*leading, *shape),
        chunks=(*leading, *(min(64, s) for s in BLOCK)),
        dtype=np.uint8,
        voxel_size_nm=VOXEL_SIZE_NM,
        offset_nm=(0, 0, 0),
    )
    for place in np.ndindex(*repeats):
        box = (slice(p * s, (p + 1) * s) for p, s in zip(place, BLOCK, strict=True))
        array[(..., *box)] = data
    write_manifest(store, inputs=[], settings={}, seconds=0)


def prepare(folder: Path, repeats: tuple[int, ...], shards: int) -> ShardedRun:
    """Raw, affinities, random weights and a threshold in `folder`."""
    raw, affinities = block()
    write(folder / "raw.zarr", "raw", raw, repeats)
    write(folder / "affinities.zarr", "affs", affinities, repeats)
    network = network_for("mtlsd_small", load_dataset("zfinch"))
    module, facts = build_network(network, seed=0), {"network": network.plain()}
    save_model(folder / "model.safetensors", module, facts)
    (folder / "threshold.json").write_text(json.dumps({"threshold": 0.5}))
    settings = {"network": network.plain(), "tile": list(BLOCK), "dtype": "uint8"}
    settings |= {"heads": head_names(network), "device": "cpu", "precision": "fp32"}
    return ShardedRun(folder, shards, settings, SEGMENT, folder / "affinities.zarr")


# ---------------------------------------------------------------- measured runs


def bytes_of(store: Path) -> int:
    """Bytes of all files of a store."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def measure(repeats: tuple[int, ...], shards: int) -> dict[str, Any]:
    """Costs by step, wall-clock seconds with every start of Python, bytes and fragments."""
    with tempfile.TemporaryDirectory() as name:
        one = prepare(Path(name), repeats, shards)
        costs: dict[str, Cost] = defaultdict(Cost)
        begin = time.perf_counter()
        for step in one.steps:
            costs[step.name] += step.run_program()
        wall = time.perf_counter() - begin
        stores = {"prediction": one.prediction, "graph": one.results / "f.zarr"}
        stores["segmentation"] = one.results / "segmentation.zarr"
        graph = zarr.open_group(stores["graph"], mode="r")
        return {
            "voxels": int(np.prod(BLOCK)) * int(np.prod(repeats)),
            "costs": {step: vars(costs[step]) for step in STEPS},
            "wall": wall,
            "bytes": {what: bytes_of(store) for what, store in stores.items()},
            "edges": len(np.asarray(graph["scores"])),
            "fragments": int(np.asarray(graph["counts"]).sum()),
        }


def per_mvoxel(measured: dict[str, Any], steps: Sequence[str] = STEPS) -> float:
    """Seconds of the steps' own work a million voxels."""
    seconds = sum(measured["costs"][step]["seconds"] for step in steps)
    return float(seconds / measured["voxels"] * 1e6)


def row(first: str, measured: dict[str, Any]) -> str:
    """One line of a table: seconds a Mvoxel by step, largest memory, wall clock."""
    steps = [f"{per_mvoxel(measured, [step]):.3f}" for step in STEPS]
    peak = max(cost["peak_mb"] for cost in measured["costs"].values())
    cells = [
        first,
        *steps,
        f"{per_mvoxel(measured):.2f}",
        f"{peak:,.0f}",
        f"{measured['wall']:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def header(first: str) -> str:
    """The head of such a table."""
    cells = [first, *(f"{step}, s/Mvoxel" for step in STEPS)]
    cells += ["all", "peak memory, MB", "wall clock, s"]
    return "| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|"


def volume(args: argparse.Namespace) -> None:
    """Four volumes, each step one job."""
    print(header("Mvoxel"))
    measured = []
    for repeats in REPEATS[: args.sizes]:
        measured.append(measure(repeats, shards=1))
        print(row(f"{measured[-1]['voxels'] / 1e6:.1f}", measured[-1]), flush=True)
    rates = [per_mvoxel(one) for one in measured]
    print(f"\nlargest difference from their mean: {max_deviation(rates):.0%}")
    print(f"bytes a voxel of the largest: {json.dumps(densities(measured[-1]))}")
    args.rates.write_text(json.dumps(measured[-1]))
    plot(measured, args.picture)


def max_deviation(values: Sequence[float]) -> float:
    """Largest relative difference from the mean."""
    mean = float(np.mean(values))
    return max(abs(value / mean - 1) for value in values)


def densities(measured: dict[str, Any]) -> dict[str, float]:
    """Bytes a voxel of each store, and fragments and edges a thousand voxels."""
    per_voxel = {what: size / measured["voxels"] for what, size in measured["bytes"].items()}
    per_voxel |= {
        f"{k} per 1000": measured[k] / measured["voxels"] * 1000 for k in ("fragments", "edges")
    }
    return {what: round(value, 3) for what, value in per_voxel.items()}


def plot(measured: Sequence[dict[str, Any]], picture: Path) -> None:
    """Seconds and memory against voxels, both axes logarithmic."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    size = [one["voxels"] / 1e6 for one in measured]
    for step in STEPS:
        costs = [one["costs"][step] for one in measured]
        left.plot(size, [cost["seconds"] for cost in costs], marker="o", label=step)
        right.plot(size, [cost["peak_mb"] for cost in costs], marker="o", label=step)
    left.set(xscale="log", yscale="log", xlabel="million voxels", ylabel="seconds")
    right.set(xscale="log", ylim=(0, None), xlabel="million voxels", ylabel="peak memory, MB")
    left.legend(fontsize=8)
    picture.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def workers(args: argparse.Namespace) -> None:
    """One volume on fewer cores, and in consecutive shards."""
    print(header("cores, shards"))
    every = sorted(os.sched_getaffinity(0))
    for cores, shards in [(1, 1), (len(every), 1), (len(every), 2), (len(every), 8)]:
        os.sched_setaffinity(0, every[:cores])
        print(row(f"{cores}, {shards}", measure(WORKERS_VOLUME, shards)), flush=True)
    os.sched_setaffinity(0, every)


# ---------------------------------------------------------------- the scheduler's part


SNAKEFILE = """
rule all:
    input: expand("out/{i}", i=range(int(config["jobs"])))

rule one:
    output: "out/{i}"
    resources: mem_mb=100, runtime=5
    shell: "touch {output}"
"""


def snakemake(folder: Path, *arguments: str) -> float:
    """Seconds of a run in `folder`."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def seconds_a_job(folder: Path, *arguments: str, counts: tuple[int, int]) -> float:
    """Difference of runs with few and with many empty jobs, which removes Snakemake's start."""
    few, many = counts
    seconds = []
    for count in (few, many):
        shutil.rmtree(folder / "out", ignore_errors=True)
        seconds.append(snakemake(folder, *arguments, "--config", f"jobs={count}"))
    return (seconds[1] - seconds[0]) / (many - few)


def jobs(_: argparse.Namespace) -> None:
    """On this machine, and through a real SLURM if one can be started."""
    sys.path.insert(0, str(ROOT / "tests"))
    import slurm_cluster

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "Snakefile").write_text(SNAKEFILE)
        local = seconds_a_job(folder, "--cores", "2", "--quiet", "all", counts=(100, 1100))
        print(f"local: {local:.3f} s a job")
        if reason := slurm_cluster.why_not():
            print(f"no SLURM here: {reason}")
            return
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(slurm_cluster.running(base))
        profile = ["--workflow-profile", str(ROOT / "profiles" / "slurm")]
        slurm = seconds_a_job(folder, *profile, "--jobs", "2", counts=(4, 12))
        print(f"SLURM, two jobs at a time on this machine: {slurm:.2f} s a job")


# ---------------------------------------------------------------- a large volume


def planned_jobs(text: str) -> int:
    """The total of a dry run's table."""
    match = re.search(r"^total +(\d+)", text, re.M)
    return int(match[1]) if match else 0


def planning(args: argparse.Namespace) -> None:
    """Seconds in which a dry run of the zebra finch in many shards is planned."""
    config = ["segment={block_shape: [180, 400, 400]}", f"shards={args.shards}"]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "--config", *config, "--", "segment_zfinch_mtlsd"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - begin
    print(f"{args.shards} shards: {planned_jobs(done.stdout)} jobs planned in {seconds:.0f} s")


def core_hours(measured: dict[str, Any], step: str, voxels: float) -> float:
    """Hours that the measured machine takes for a step of `voxels`."""
    return per_mvoxel(measured, [step]) * voxels / 1e6 / 3600


def file_count(zarr_format: int, jobs: int) -> int:
    """Files of affinities, descriptors, fragments and segments of the benchmark region.

    Each array has the layout that the programs choose in `jobs` jobs.
    """
    network = network_for("mtlsd", load_dataset("zfinch"))
    module, whole = build_network(network, device="meta"), VoxelBox((0, 0, 0), BENCHMARK_ROI)
    tile = shard_tile(module, whole, "auto", network.inference_shape)
    predicted, segmented = prediction_chunks(module.stride), fragment_chunks(PLANNED_BLOCK)
    if zarr_format == 3:
        predicted = shard_edges(BENCHMARK_ROI, tile, fewest=FILES_PER_JOB * jobs)
        segmented = PLANNED_BLOCK
    return sum(2 * chunk_count(BENCHMARK_ROI, edges) for edges in (predicted, segmented))


def plan_lines(args: argparse.Namespace) -> Iterator[str]:
    """Hours, storage and files of the benchmark region, from the measurements of `volume`."""
    measured = json.loads(args.rates.read_text())
    voxels = float(np.prod(BENCHMARK_ROI))
    um3 = voxels * np.prod(VOXEL_SIZE_NM) / 1e9
    yield f"{voxels / 1e9:.0f} Gvoxel, {um3:,.0f} um^3, in {args.shards} shards"
    network = network_for("mtlsd", load_dataset("zfinch"))
    rate = rate_of("predict", on_gpu=True, network=network.name, input_shape=network.input_shape)
    assert rate is not None, "config/rates.yaml lacks the paper's rate"
    gpu_hours = (rate.seconds(VOXEL_SIZE_NM) or 0) * voxels / 1e6 / 3600
    wall = gpu_hours / args.gpus
    yield f"predict: {gpu_hours:,.0f} GPU hours at the paper's rate, {wall:,.1f} h on {args.gpus}"
    for step in ("fragments", "edges", "apply"):
        hours = core_hours(measured, step, voxels) * os.cpu_count()
        per_shard, wall = hours / args.shards, hours / args.cores
        each = f"{per_shard:.1f} per shard, {wall:,.1f} h on {args.cores}"
        yield f"{step}: {hours:,.0f} core hours, {each}"
    count = {what: measured[what] / measured["voxels"] * voxels for what in ("fragments", "edges")}
    memory = 24 * count["fragments"] / 1e9
    yield (
        f"join: 1 job, {count['fragments'] / 1e9:.2f} billion fragments, "
        f"{count['edges'] / 1e9:.2f} billion edges, {memory:.0f} GB of memory"
    )
    stored = {what: size / measured["voxels"] * voxels for what, size in measured["bytes"].items()}
    stored |= {"prediction (13 channels, not compressed)": 13 * voxels}
    for what, size in stored.items():
        yield f"storage, {what}: {size / 1e12:.2f} TB"
    lists = 2 * math.ceil(count["edges"] / LIST_CHUNK)
    for zarr_format in (2, 3):
        files = file_count(zarr_format, args.shards) + lists
        yield (
            f"files, `zarr_format: {zarr_format}`: {files:,}, with two names while the stores of "
            "the jobs exist"
        )


def plan(args: argparse.Namespace) -> None:
    """Prints the plan."""
    print("\n".join(plan_lines(args)))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for command in (volume, workers, jobs, planning, plan):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--sizes", type=int, default=len(REPEATS), help="how many of the volumes")
        sub.add_argument("--rates", type=Path, default=Path("rates.json"), help="what was measured")
        sub.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "scale.svg")
        sub.add_argument("--shards", type=int, default=512)
        sub.add_argument("--gpus", type=int, default=8)
        sub.add_argument("--cores", type=int, default=64)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one of the parts."""
    args = parse_args(argv)
    args.command(args)


if __name__ == "__main__":
    main()
