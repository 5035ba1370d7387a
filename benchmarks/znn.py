"""Speed of N4, forward and training, compared with dilated modules and patch-wise evaluation.

    python benchmarks/znn.py --threads 2
    python benchmarks/znn.py --network zinet --modes direct fft --outputs 1,9,9

In one run, in turn: our network (each conv mode), the same layers as plain dilated modules and the
same network window by window (forward only, as many windows as take a second). Figures are output
voxels per second and, of the first two, the fraction of the machine's matrix products, measured
right before and after; a training step counts three times the forward FLOP. --network takes any
sample network that is a chain.

N4 is compared with figures of the original program as well, ORIGINAL, measured once on another
machine together with plain modules, PLAIN. Plain modules lead from one machine to the other: the
table at the end divides by their rate at 1,100,100 in the same run. With `--processor-time` and
`--threads 1` other programs disturb less.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from machine import alternating, matrix_rate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.device import choose_device  # noqa: E402
from retrace.networks import build_network  # noqa: E402
from retrace.networks.znn import ZnnNetwork  # noqa: E402
from retrace.training.znn_optimizer import ZnnOptimizer  # noqa: E402

WINDOW_SECONDS = 1.0
OUTPUTS = [[1, 100, 100], [1, 200, 200], [1, 300, 300]]
ORIGINAL = {
    ("forward", (1, 100, 100)): 36150,
    ("forward", (1, 200, 200)): 54150,
    ("training step", (1, 100, 100)): 2930,
}
"""Voxels/s of ZNN's own core on N4 (N4_relu.znn), float32, all convolutions by FFT (FFTW), two
threads of a 2-core AMD EPYC with other load (1.2 to 1.5), median of 2 to 5 rounds. A larger output
is compared with the largest that was measured; for a training step that is 1,100,100."""
PLAIN = {("forward", (1, 100, 100)): 82200, ("training step", (1, 100, 100)): 32870}
"""Voxels/s of the plain dilated modules in the session of ORIGINAL (load 2.6). They lead from it to
any machine: ours / plain, here and in one run, times plain / original, there."""
GOALS = {"forward": 4, "training step": 15}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    def shape(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="n4")
    parser.add_argument("--dataset", default="vnc_nc")
    parser.add_argument("--outputs", nargs="+", type=shape, default=OUTPUTS)
    parser.add_argument("--modes", nargs="+", choices=["direct", "fft"], default=["direct"])
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processor-time", action="store_true", help="with --threads 1")
    return parser.parse_args(argv)


def original(kind: str, output: Sequence[int]) -> tuple[float, tuple[int, ...]] | None:
    """The original's voxels/s at its largest measured output up to `output`, and that output."""
    fitting = [s for name, s in ORIGINAL if name == kind and math.prod(s) <= math.prod(output)]
    if not fitting:
        return None
    shape = max(fitting, key=math.prod)
    return ORIGINAL[kind, shape], shape


def compared_with_original(network: str, row: str, output: Sequence[int], rate: float) -> str:
    """How many times the original's figure `rate` is, and its output; nothing where it has none."""
    known = original(row.rsplit(", ", 1)[1], output)
    if network != "n4" or known is None:
        return ""
    return f"{rate / known[0]:6.1f} x ZNN at {','.join(map(str, known[1]))}"


Rates = dict[tuple[str, tuple[int, ...]], float]
"""Voxels/s by row and output."""


def by_way_of_plain(rates: Rates) -> str:
    """A line per row of ours: how many times the original's rate it is, by way of plain modules.

    Ours at an output / plain modules at PLAIN's output, here, times plain / original, there.
    """
    lines = ["", "times the original, by way of plain modules at 1,100,100 in this run:"]
    for (row, output), rate in rates.items():
        kind = row.rsplit(", ", 1)[1]
        plain = rates.get((f"plain dilated, {kind}", (1, 100, 100)))
        known = original(kind, output)
        if row.startswith("plain") or plain is None or known is None:
            continue
        gain = rate / plain * PLAIN[kind, (1, 100, 100)] / known[0]
        there = f"goal {GOALS[kind]}, original at {','.join(map(str, known[1]))}"
        lines.append(f"{row:28s} {','.join(map(str, output)):12s} {gain:5.1f} x  ({there})")
    return "\n".join(lines if len(lines) > 2 else [])


class Dilated(nn.Sequential):
    """The same chain as plain torch modules: dilated convolutions and dilated max filters."""

    def __init__(self, network: ZnnNetwork) -> None:
        layers: list[nn.Module] = []
        graph = network.graph
        for name in graph.order[1:]:
            (edge,) = graph.incoming(name)
            dilation = graph.dilations[edge.input]
            if edge.type == "conv":
                sizes = graph.nodes[edge.input].size, graph.nodes[name].size
                layers.append(nn.Conv3d(*sizes, edge.size, dilation=dilation))
                if graph.nodes[name].function == "rectify_linear":
                    layers.append(nn.ReLU())
            elif edge.type == "max_filter":
                layers.append(nn.MaxPool3d(edge.size, 1, dilation=dilation))
        super().__init__(*layers)


def forward(module: Callable[[Tensor], object], x: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return module(x)

    return run


def step(module: nn.Module, x: Tensor, first: Callable[[Tensor], Tensor]) -> Callable[[], object]:
    optimizer = ZnnOptimizer(
        module, eta=1e-6, momentum=0.9, weight_decay=0, anneal_factor=1, anneal_every=1
    )

    def run() -> object:
        optimizer.zero_grad()
        first(x).square().mean().backward()
        return optimizer.step()

    return run


def only_output(network: ZnnNetwork) -> Callable[[Tensor], Tensor]:
    (head,) = network.output_nodes
    return lambda x: network(x)[head]


def window_by_window(network: ZnnNetwork, x: Tensor) -> float:
    """Output voxels per second when each is computed for itself, as long as WINDOW_SECONDS."""
    fov = network.graph.field_of_view
    part = x[..., : fov[0], : fov[1], : fov[2]]
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < WINDOW_SECONDS or not count:
        forward(network, part)()
        count += 1
    return count / (time.perf_counter() - begin)


def works(
    args: argparse.Namespace, network: ZnnNetwork, plain: nn.Module, x: Tensor
) -> dict[str, Callable[[], object]]:
    """What is timed, by row."""
    found: dict[str, Callable[[], object]] = {}

    def in_mode(mode: str, run: Callable[[], object]) -> Callable[[], object]:
        def set_and_run() -> object:
            for layer in network.convolutions.values():
                layer.mode = mode
            return run()

        return set_and_run

    for mode in args.modes:
        found[f"ours, {mode}, forward"] = in_mode(mode, forward(network, x))
        train = step(network, x, only_output(network))
        found[f"ours, {mode}, training step"] = in_mode(mode, train)
    found["plain dilated, forward"] = forward(plain, x)
    found["plain dilated, training step"] = step(plain, x, plain)
    return found


def measure(args: argparse.Namespace, network: ZnnNetwork, output: list[int]) -> Rates:
    """Prints the rows of an output, and returns their voxels/s."""
    device = choose_device(args.device)
    shape = network.valid_shape(output)
    x = torch.rand((1, network.input_channels, *shape), device=device)
    plain = Dilated(network).to(device)
    clock = time.process_time if args.processor_time else time.perf_counter
    rates = [matrix_rate(device, torch.float32, clock=clock)]
    timings = alternating(works(args, network, plain, x), args.rounds, device=device, clock=clock)
    alone = window_by_window(network, x)
    rates.append(matrix_rate(device, torch.float32, clock=clock))
    voxels, flop = math.prod(output), network.flop(shape)
    print(f"\n{args.network}, output {output}, input {list(shape)}, {flop / 1e9:.2f} GFLOP")
    for name in timings.seconds:
        took, speed = timings.took(name).median, timings.rate(name, voxels)
        share = flop * (3 if "step" in name else 1) / took / max(rates)
        comparison = compared_with_original(args.network, name, output, speed.median)
        rate = f"{took:8.3f} s {speed:.0f} voxels/s {share:6.1%} of products"
        print(f"{name:28s} {rate} {comparison}")
    comparison = compared_with_original(args.network, "window by window, forward", output, alone)
    print(
        f"{'window by window, forward':28s} {'':10s} {alone:10.1f} voxels/s {'':18s} {comparison}"
    )
    print(f"matrix products: {max(rates) / 1e9:.0f} GFLOP/s", flush=True)
    return {(name, tuple(output)): timings.rate(name, voxels).median for name in timings.seconds}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    network = build_network(network_for(args.network, load_dataset(args.dataset))).to(device)
    print(f"{device}, {args.threads} threads, torch {torch.__version__}")
    rates: Rates = {}
    for output in args.outputs:
        rates |= measure(args, network, output)
    if args.network == "n4":
        print(by_way_of_plain(rates))


if __name__ == "__main__":
    main()
