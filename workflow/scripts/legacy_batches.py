"""Makes the training batches of train.py for another program, and hands them over through a pipe.

The legacy engine trains on them, so that both engines see the same voxels. What goes through the
pipe: a header (JSON: dataset, network, seed, folder, first, last, every), then for each iteration
`raw` as the network reads it (C, Z, Y, X), and per head `gt_HEAD` and `weight_HEAD`, float32, as an
.npz. Every message is its length (8 bytes, little-endian) and its bytes (legacy/stream.py).
"""

from __future__ import annotations

import argparse
import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from retrace.checkpoints.tensorflow import find_checkpoint
from retrace.command_line import named_paths
from retrace.errors import ConfigError, DataError, run
from retrace.progress import progress
from retrace.training.build import build_trainer, training_digest
from retrace.training.lsd_family import LsdFamilyTask
from retrace.training.task import WeightFiles


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="those of train.py")
    parser.add_argument("--masks", nargs="*", default=[], metavar="VOLUME=PATH")
    parser.add_argument("--context", type=Path, help="model that an auto-context network reads")
    parser.add_argument("--published", type=Path, help="folder of a checkpoint to go on from")
    parser.add_argument("--work", required=True, type=Path, help="folder the other side works in")
    parser.add_argument("--output", required=True, type=Path, help="pipe")
    return parser.parse_args(argv)


def as_arrays(task: LsdFamilyTask, iteration: int) -> dict[str, np.ndarray]:
    """One batch as the graph of mknet.py is fed, float32; a weight has its target's shape."""
    batch = task.batch(iteration)
    if "objects" in batch:
        raise ConfigError(
            f"iteration {iteration + 1} of {task.network['name']!r} is trained with MALIS, which "
            "the legacy engine does not have here; end before it, or use the modern engine"
        )
    arrays = {"raw": _plain(task.network_input(batch)[0])}
    for head in task.heads:
        target = batch[head]
        arrays[f"gt_{head}"] = _plain(target)
        arrays[f"weight_{head}"] = _plain(batch[f"{head}_weight"].expand_as(target))
    return arrays


def _plain(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def write_message(pipe: BinaryIO, content: bytes) -> None:
    """Length and bytes."""
    pipe.write(struct.pack("<Q", len(content)))
    pipe.write(content)
    pipe.flush()


def write_batch(pipe: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """One batch as an .npz."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_message(pipe, content.getvalue())


def done_before(*folders: Path | None) -> int:
    """The iteration of the checkpoint that is gone on from: of the first folder that has one."""
    for folder in folders:
        if folder is not None and folder.is_dir():
            try:
                return find_checkpoint(folder)[1]
            except DataError:
                continue
    return 0


def header(args: argparse.Namespace) -> dict[str, Any]:
    """What the other side has to know before the first batch."""
    settings = args.settings
    weights = WeightFiles(context=args.context, published=args.published)
    network = settings["network"]
    name = f"{settings['dataset']['name']}_{network['name']}_{training_digest(settings, weights)}"
    return {
        "dataset": settings["dataset"]["name"],
        "network": network,
        "seed": settings["seed"],
        "folder": name,
        "first": done_before(args.work / name, args.published),
        "last": settings["iterations"],
        "every": network["checkpoint_every"],
    }


def send(args: argparse.Namespace, pipe: BinaryIO) -> None:
    """Header and batches; nothing but the header where the other side is done already."""
    head = header(args)
    write_message(pipe, json.dumps(head).encode())
    iterations = range(head["first"], head["last"])
    if not iterations:
        return
    masks, weights = named_paths(args.masks), WeightFiles(context=args.context)
    trainer = build_trainer(args.settings, masks, args.work / "none", weights)
    assert isinstance(trainer.task, LsdFamilyTask)
    for iteration in progress(iterations, len(iterations), "batches", "batches"):
        write_batch(pipe, as_arrays(trainer.task, iteration))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # Opened first: it waits until the other side is there.
    with args.output.open("wb") as pipe:
        send(args, pipe)


if __name__ == "__main__":
    run(main)
