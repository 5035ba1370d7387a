"""Time to read a checkpoint of the size of the published ones.

    python benchmarks/checkpoint.py                      # zebra finch mtlsd: 1.15 GB
    python benchmarks/checkpoint.py --network baseline --dataset fib25    # 3.2 GB

Weights and both moments of Adam, as in the original. Read twice: with the file in the system's
cache the second time measures the reader, not the disk. For comparison, the time to read the same
bytes, and to compute their checksums.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.checkpoints.published import load_published, read_published, write_published  # noqa: E402
from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.networks import UNet, build_network  # noqa: E402
from retrace.training.adam import make_optimizer  # noqa: E402


def write(folder: Path, network: dict[str, Any]) -> tuple[Path, UNet]:
    """A checkpoint with random weights and moments; returns its data file and the network."""
    module = build_network(network)
    adam = network.optimizer
    optimizer = make_optimizer(module, lr=adam.lr, betas=adam.betas, eps=adam.eps)
    for parameter in module.parameters():
        moments = {name: torch.rand_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}
    prefix = write_published(folder, module, 400000, optimizer=optimizer)
    return prefix.with_name(prefix.name + ".data-00000-of-00001"), module


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = what()
    return time.perf_counter() - begin, result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mtlsd")
    parser.add_argument("--dataset", default="zfinch")
    args = parser.parse_args(argv)
    network = network_for(args.network, load_dataset(args.dataset))
    with tempfile.TemporaryDirectory() as name:
        data, module = write(Path(name), network)
        size = data.stat().st_size
        first, _ = timed(lambda: read_published(data.parent))
        second, published = timed(lambda: read_published(data.parent))
        fill, _ = timed(lambda: load_published(published, module, args.network))
        plain, content = timed(data.read_bytes)
        check, _ = timed(lambda: google_crc32c.value(content))
    print(f"{args.network} on {args.dataset}: {size / 1e9:.2f} GB, weights and moments")
    rows = {
        "read, first": first,
        "read, again": second,
        "into the network": fill,
        "plain read": plain,
        "checksum alone": check,
    }
    for label, seconds in rows.items():
        print(f"{label:<18}{seconds:8.2f} s  {size / seconds / 1e9:8.2f} GB/s")


if __name__ == "__main__":
    main()
