"""Speed of ELEKTRONN's 3-D example: training, and dense compared with strided prediction.

    python benchmarks/elektronn.py --threads 2

In one run, in turn: a training step on one patch; a dense pass (max-fragment pooling) over a block;
and the same block as ELEKTRONN's predictDense did it, one strided pass for each offset below the
stride. Seconds are those of the process, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.losses.elektronn import nll  # noqa: E402
from retrace.networks import build_network  # noqa: E402
from retrace.networks.elektronn import ElektronnNetwork  # noqa: E402
from retrace.training.elektronn_optimizers import elektronn_optimizer  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["neuro3d_doc", "neuro3d_file"])
    parser.add_argument("--output", nargs=3, type=int, default=[5, 120, 120], help="z y x")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of the process, after one run that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def strided(module: ElektronnNetwork, x: Tensor) -> Tensor:
    """Dense output interleaved from strided passes."""
    sizes = module.architecture.sizes
    assert sizes is not None
    steps = [axis[-1] for axis in sizes.strides]
    classes = module.architecture.layers[-1].maps
    whole = torch.empty(1, classes, *module.output_shape(x.shape[-3:]))
    for begin in itertools.product(*map(range, steps)):
        part = module.raw(x[(..., *[slice(b, None) for b in begin])])
        target = whole[(..., *[slice(b, None, s) for b, s in zip(begin, steps, strict=True)])]
        target.copy_(part[(..., *map(slice, target.shape[-3:]))])
    return whole


def report(name: str, args: argparse.Namespace) -> None:
    network = network_for(name, load_dataset("neuro3d"))
    module = build_network(network)
    optimizer = elektronn_optimizer(module.parameters(), network.SGD_params)
    x = torch.rand(1, 1, *network.input_shape)
    labels = torch.randint(0, 2, module.raw(x).shape[:1] + module.raw(x).shape[2:])

    def step() -> None:
        optimizer.zero_grad()
        nll(module.raw(x), labels).backward()
        optimizer.step()

    trained = seconds(step, args.rounds)
    block = torch.rand(1, 1, *module.valid_shape(args.output))
    voxels = math.prod(args.output)
    with torch.inference_mode():
        difference = float((module.dense(block) - strided(module, block)).abs().max())
        dense = seconds(lambda: module.dense(block), args.rounds)
        naive = seconds(lambda: strided(module, block), args.rounds)
    print(f"{name}, {args.threads} threads, block {args.output}")
    print(f"  training         {1 / trained * args.threads:8.2f} iterations/s of all threads")
    print(f"  dense            {voxels / dense / 1e3 * args.threads:8.1f} kvoxel/s of all threads")
    print(f"  strided passes   {voxels / naive / 1e3 * args.threads:8.1f} kvoxel/s of all threads")
    print(f"  dense / strided  {naive / dense:8.2f}; outputs differ by {difference:.1e} at most")


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    for name in args.networks:
        report(name, args)


if __name__ == "__main__":
    main()
