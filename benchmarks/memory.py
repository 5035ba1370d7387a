"""Peak memory of a training step of the full networks, estimated without running it.

    python benchmarks/memory.py                    # the seven networks, zebra finch and FIB-25
    python benchmarks/memory.py acrlsd --dataset zfinch

PyTorch counts what a step allocates (MemTracker over fake tensors): weights, gradients, Adam's
moments, activations kept for the backward pass, and for auto-context networks the pass of the
network whose descriptors they read. Workspaces of GPU libraries and allocator overhead are not
included.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.datasets import load_dataset
from retrace.config.networks import context_network, network_for
from retrace.networks import UNet, build_network  # noqa: E402

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")
CARD_GB = 24


def one_step(
    network: UNet,
    context: UNet | None,
    shape: Sequence[int],
    bf16: bool,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Forward, backward and Adam on one batch; `shape`: input of the network, voxels (z, y, x)."""
    optimizer.zero_grad()
    input_shape = shape if context is None else context.valid_shape(shape)
    raw = torch.rand(1, 1, *input_shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if context is None:
            x = raw
        else:
            with torch.no_grad():
                x = context(raw)["lsds"].float()
            if next(network.parameters()).shape[1] > x.shape[1]:
                middle = [(a - b) // 2 for a, b in zip(input_shape, x.shape[2:], strict=True)]
                cut = [slice(m, m + s) for m, s in zip(middle, x.shape[2:], strict=True)]
                x = torch.cat([raw[(..., *cut)], x], 1)
        outputs = network(x)
    loss = sum((output.float() ** 2).mean() for output in outputs.values())
    loss.backward()  # type: ignore[union-attr]
    optimizer.step()


def peak_gb(network: Any, context: Any, bf16: bool) -> float:
    """GB (10^9 bytes) that one training step holds at most."""
    real = [build_network(settings) for settings in (network, context) if settings]
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        net, *rest = [copy.deepcopy(module) for module in real]  # copies without bytes
    with mode:
        around = rest[0] if rest else None
        tracker = MemTracker()
        tracker.track_external(net, *([around] if around else []))
        with tracker:
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
            for _ in range(2):  # the moments exist from the second step on
                tracker.reset_mod_stats()
                one_step(net, around, network.input_shape, bf16, optimizer)
    peaks = tracker.get_tracker_snapshot("peak")
    return max(sum(kinds.values()) - kinds["Total"] for kinds in peaks.values()) / 1e9


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--dataset", nargs="+", default=["zfinch", "fib25"])
    args = parser.parse_args(argv)
    for name in args.dataset:
        dataset = load_dataset(name)
        for network_name in args.networks:
            network = network_for(network_name, dataset)
            context = context_network(network, dataset)
            single, mixed = (peak_gb(network, context, bf16) for bf16 in (False, True))
            print(
                f"{name}_{network_name}: input {list(network.input_shape)}, peak {single:.1f} GB "
                f"in float32, {mixed:.1f} GB in bf16; a card of {CARD_GB} GB holds "
                f"{'both' if single < CARD_GB else 'bf16' if mixed < CARD_GB else 'neither'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
