"""Speed of ELEKTRONN's networks: of its 3-D example, and of those of digits.

    python benchmarks/elektronn.py --threads 2
    python benchmarks/elektronn.py --threads 1 --networks --images cnn_warp cnn_modern

3-D, in one run, in turn: a training step on one patch; a dense pass (max-fragment pooling) over a
block; and the same block as ELEKTRONN's predictDense did it, one strided pass for each offset below
the stride. Images: a training step on one batch, in turn with the same layers as plain torch
modules. Seconds are those of the process, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.losses.elektronn import nll  # noqa: E402
from retrace.networks import build_network  # noqa: E402
from retrace.networks.elektronn import ElektronnNetwork  # noqa: E402
from retrace.training.elektronn_optimizers import elektronn_optimizer  # noqa: E402

from machine import alternating, describe_machine  # isort: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["neuro3d_doc", "neuro3d_file"])
    parser.add_argument("--images", nargs="*", default=[], help="networks of mnist_sample")
    parser.add_argument("--output", nargs=3, type=int, default=[5, 120, 120], help="z y x")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


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

    block = torch.rand(1, 1, *module.valid_shape(args.output))
    passes = {"dense": partial(module.dense, block), "strided": partial(strided, module, block)}
    works = {name: torch.inference_mode()(run) for name, run in passes.items()}
    difference = float((works["dense"]() - works["strided"]()).abs().max())
    timings = alternating({"training": step, **works}, args.rounds, clock=time.process_time)
    trained, dense, naive = (timings.took(name).median for name in ("training", *works))
    voxels = math.prod(args.output)
    print(f"{name}, {args.threads} threads, block {args.output}")
    print(f"  training         {1 / trained * args.threads:8.2f} iterations/s of all threads")
    print(f"  dense            {voxels / dense / 1e3 * args.threads:8.1f} kvoxel/s of all threads")
    print(f"  strided passes   {voxels / naive / 1e3 * args.threads:8.1f} kvoxel/s of all threads")
    print(f"  dense / strided  {naive / dense:8.2f}; outputs differ by {difference:.1e} at most")


def plain_layers(module: ElektronnNetwork) -> nn.Sequential:
    """The layers of a network of images as torch's own modules, with its weights; no dropout."""
    layers: list[nn.Module] = []
    for part in module.parts:
        own = part.layer
        if own.is_dense:
            layers.append(nn.Linear(part.weight.shape[1], own.maps))
            if not any(isinstance(layer, nn.Flatten) for layer in layers):
                layers.insert(-1, nn.Flatten())
        else:
            layers.append(nn.Conv2d(part.weight.shape[1], own.maps, own.filter))
        layers[-1].load_state_dict({"weight": part.weight, "bias": part.bias})
        if math.prod(own.pool) > 1:
            layers.append(nn.MaxPool2d(own.pool))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1])  # softmax acts on the last layer's sums


def report_images(name: str, args: argparse.Namespace) -> None:
    network = network_for(name, load_dataset("mnist_sample"))
    module = build_network(network).train()
    for part in module.parts:
        part.drop.rate = 0.0
    side = network.input_shape
    x, labels = torch.rand(network.batch_size, 1, *side), torch.arange(network.batch_size) % 10
    passes = {"ours": module.raw, "plain": plain_layers(module)}
    with torch.no_grad():
        outputs = [run(x) for run in passes.values()]
    print(f"{name}, {args.threads} threads, batches of {network.batch_size} images of {side}")
    print(f"  outputs differ by {float((outputs[0] - outputs[1]).abs().max()):.1e} at most")
    for bf16 in (False, True):
        steps = {key: partial(step_of_images, run, x, labels, bf16) for key, run in passes.items()}
        timings = alternating(steps, args.rounds, clock=time.process_time)
        ours, plain = (f"{1e3 * timings.took(key).median:.1f} ms" for key in steps)
        ratio = f"{timings.times_as_fast('ours', 'plain'):.2f}"
        print(f"  {'bf16' if bf16 else 'float32'}: {ours}, plain {plain}, ratio {ratio}")


def step_of_images(run: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, bf16: bool) -> None:
    """Forward and backward pass of one batch."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = run(x)
    functional.cross_entropy(output.float(), labels).backward()


def main() -> None:
    args = parse_args()
    print(describe_machine())
    torch.set_num_threads(args.threads)
    for name in args.networks:
        report(name, args)
    for name in args.images:
        report_images(name, args)


if __name__ == "__main__":
    main()
