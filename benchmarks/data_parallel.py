"""Training in several processes compared with one: the same batches, the same cores.

    python benchmarks/data_parallel.py --processes 2                  # on the CPU
    python benchmarks/data_parallel.py --processes 4 --device auto    # a GPU for each

On a CPU one process with all threads is compared with several that divide them; on GPUs one GPU
with several. Each is the workflow's own program, in turn, and its own count of iterations a second.
The largest difference of a weight comes from summing the batch in another order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file

from tissue import settings_for

TRAIN = Path(__file__).resolve().parent.parent / "workflow" / "scripts" / "train.py"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `tissue.settings_for` reads it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="samples an iteration; default: one each")
    parser.add_argument("--network", default="mtlsd_small")
    parser.add_argument("--dataset", default="fib25", help="whose recipe and voxel size are taken")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(warm_up=0, precision="fp32", compile="no", workers=None, threads=None)
    return parser.parse_args(argv)


def trained(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The history (training.json) of a new training in `folder`."""
    command = [sys.executable, str(TRAIN), "--settings", json.dumps(settings)]
    places = {"work": "work", "output": "model.safetensors", "history": "training.json"}
    for option, name in places.items():
        command += [f"--{option}", str(folder / name)]
    subprocess.run(command, check=True, capture_output=True)
    history: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return history


def difference(first: Path, second: Path) -> float:
    """Largest difference of a weight in two models."""
    one, other = load_file(first), load_file(second)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def report(args: argparse.Namespace, folder: Path) -> str:
    """Iterations a second of one process and of several, their ratio, and their difference."""
    batch_size = args.batch_size or args.processes
    settings = settings_for(args, folder / "tissue.zarr") | {"iterations": args.iterations}
    settings["network"]["batch_size"] = batch_size
    counts = (1, args.processes)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for round_number in range(args.rounds):
        for count in counts:
            place = folder / f"{round_number}_{count}"
            rate = trained(settings | {"gpus": count}, place)["iterations_per_second"]
            rates[count].append(float(rate))
    models = [folder / f"0_{count}" / "model.safetensors" for count in counts]
    one, many = (median(rates[count]) for count in counts)
    where = f"{torch.cuda.get_device_name()}" if args.device != "cpu" else f"{os.cpu_count()} cores"
    return (
        f"{args.network}, {batch_size} samples an iteration, {where}\n"
        f"1 process      {one:8.3f} iterations/s\n"
        f"{args.processes} processes    {many:8.3f} iterations/s, {many / one:.2f} x\n"
        f"largest difference of a weight after {args.iterations} iterations: "
        f"{difference(*models):.1e}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        print(report(parse_args(argv), Path(folder)))


if __name__ == "__main__":
    main()
