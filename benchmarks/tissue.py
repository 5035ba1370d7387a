"""Generated tissue to train on, for the benchmarks of training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.storage.zarr_writer import create_volume
from retrace.synthetic.neurites import generate_neurites


def write_tissue(store: Path, shape: Sequence[int], voxel_size_nm: Sequence[int]) -> None:
    """Generated tissue with ground truth, so that targets cost as much as on real data."""
    raw, labels = generate_neurites(shape, voxel_size_nm, seed=0)
    arrays = {"raw": raw, "labels": labels}
    for name, data in arrays.items():
        array = create_volume(
            store,
            name,
            shape=shape,
            chunks=(64, 64, 64),
            dtype=data.dtype,
            voxel_size_nm=voxel_size_nm,
            offset_nm=(0, 0, 0),
        )
        array[...] = data


def parse_args(
    argv: Sequence[str] | None, description: str, *, iterations: int
) -> argparse.Namespace:
    """The command line of a benchmark of training, for `settings_for`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--network", default="mtlsd_small")
    parser.add_argument("--dataset", default="fib25", help="whose recipe and voxel size are taken")
    parser.add_argument("--iterations", type=int, default=iterations)
    parser.add_argument("--warm-up", type=int, default=3, help="iterations before the clock runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", default="auto", choices=["auto", "yes", "no"])
    parser.add_argument("--workers", type=int, help="threads that make batches ahead")
    parser.add_argument("--threads", type=int, help="threads of one operation on the CPU")
    return parser.parse_args(argv)


def settings_for(args: argparse.Namespace, store: Path) -> dict[str, Any]:
    """Settings of train.py for the network and recipe that a benchmark's command line asks for."""
    recipe_dataset = load_dataset(args.dataset)
    network = network_for(args.network, recipe_dataset)
    write_tissue(store, [n + n // 4 for n in network.input_shape], recipe_dataset.voxel_size_nm)
    sources = {part: {"path": str(store), "array": part} for part in ("raw", "labels")}
    dataset = {
        "name": args.dataset,
        "voxel_size_nm": recipe_dataset.voxel_size_nm,
        "background_ids": [],
        "volumes": {"generated": sources},
        "train": [{"volume": "generated", "roi_nm": None, "probability": 1.0}],
    }
    compile_choice = {"auto": "auto", "yes": True, "no": False}[args.compile]
    return {
        "dataset": dataset,
        "network": network.plain() | {"snapshot_every": 10**9, "checkpoint_every": 10**9},
        "iterations": args.warm_up,
        "seed": 0,
        "device": args.device,
        "precision": args.precision,
        "compile": compile_choice,
        "threads": args.threads,
        "workers": args.workers,
        "checkpoint_seconds": 1e9,
    }
