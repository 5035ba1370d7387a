"""Aligned megapixels per second, compared with the network's convolutions alone.

    python benchmarks/alignment_speed.py --networks seamless_small seamless --side 1024

One pair of sections with equalised contrast, the field of both orientations averaged, the section
warped by it: the cost of a section of a stack without reading and writing. The limit is the time of
the same convolutions on inputs of the same shapes, one after the other, and nothing else. Pixels
are those of the source section, counted once. Weights are random, which does not change the cost.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.prepare import prepare_sections, valid_mask  # noqa: E402
from retrace.config.networks import network_by_name
from retrace.device import choose_device  # noqa: E402
from retrace.displacement import warp
from retrace.networks import build_network  # noqa: E402
from retrace.networks.builders import field_options_of
from retrace.networks.seamless import Seamless  # noqa: E402

Call = tuple[nn.Conv2d, tuple[int, ...]]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["seamless_small"])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def best(function: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Seconds of the fastest of some runs, after one that is not counted.

    On a CPU those of the processor divided by the threads: other work on the machine disturbs them
    less.
    """
    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = []
    for _ in range(repeats + 1):
        begin = clock()
        function()
        if not on_cpu:
            torch.cuda.synchronize()
        seconds.append(clock() - begin)
    return min(seconds[1:]) / (torch.get_num_threads() if on_cpu else 1)


def convolutions(module: Seamless, run: Callable[[], Any]) -> list[Call]:
    """All convolutions of a run with the shapes of their inputs."""
    calls: list[Call] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls.append((layer, tuple(inputs[0].shape)))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return calls


def billions(calls: Sequence[Call]) -> float:
    """Multiplications and additions of convolutions, both counted."""
    return sum(
        2 * layer.weight.numel() * shape[0] * shape[2] * shape[3] / 1e9 for layer, shape in calls
    )


@torch.no_grad()
def measure(name: str, args: argparse.Namespace) -> tuple[float, float, float, float]:
    """Seconds of a section, of its network alone and of its convolutions; GFLOP of these."""
    device = choose_device(args.device)
    network = network_by_name(name)
    module = build_network(network, device=device).eval()
    images = torch.rand(2, 1, args.side, args.side)
    moved = images[:1].to(device)

    def prepared(image: Tensor) -> Tensor:
        valid, radius_px = valid_mask(image), network.contrast.equalised_radius_px
        filled = prepare_sections(image, valid, radius_px=radius_px, fill=network.input.mean)[1]
        return filled[None].to(device)

    def field(source: Tensor, target: Tensor) -> Tensor:
        return module.field(source, target, field_options_of(network.align))

    def section() -> Tensor:
        return warp(moved, field(prepared(images[0]), prepared(images[1])))

    source, target = prepared(images[0]), prepared(images[1])
    calls = convolutions(module, lambda: field(source, target))
    inputs = {shape: torch.rand(shape, device=device) for _, shape in calls}

    def limit() -> None:
        for layer, shape in calls:
            layer(inputs[shape])

    timed = [section, lambda: field(source, target), limit]
    seconds = [best(function, args.repeats, device) for function in timed]
    return seconds[0], seconds[1], seconds[2], billions(calls)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"{args.side} x {args.side} px, {args.threads} threads, {args.device}")
    print("| network | Mpx/s | network alone | convolutions alone | GFLOP/s of these | share |")
    print("|---|---|---|---|---|---|")
    pixels = args.side**2 / 1e6
    for name in args.networks:
        whole, inner, limit, work = measure(name, args)
        rates = " | ".join(f"{pixels / seconds:.3f}" for seconds in (whole, inner, limit))
        print(f"| `{name}` | {rates} | {work / limit:.0f} | {limit / whole:.0%} |", flush=True)


if __name__ == "__main__":
    main()
