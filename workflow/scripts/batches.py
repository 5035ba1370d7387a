"""Writes training batches to disk, as train.py makes them, for another program to train on.

Batch i (from 0) is OUTPUT/batch_%09d.npz: `raw` as the network reads it (C, Z, Y, X), and per head
`gt_HEAD` and `weight_HEAD`, float32. The legacy engine trains on them, so that both engines see
the same voxels.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from retrace.errors import ConfigError, run
from retrace.manifest import atomic_write
from retrace.progress import progress
from retrace.training.lsd_family import LsdFamilyTask
from train import Models, make_trainer, parse_masks


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="those of train.py")
    parser.add_argument("--masks", nargs="*", default=[], metavar="VOLUME=PATH")
    parser.add_argument("--context", type=Path, help="model that an auto-context network reads")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, required=True, help="the one after the last batch")
    parser.add_argument("--output", required=True, type=Path, help="folder")
    return parser.parse_args(argv)


def as_arrays(task: LsdFamilyTask, iteration: int) -> dict[str, np.ndarray]:
    """One batch as the graph of mknet.py is fed, float32; a weight has its target's shape."""
    batch = task.batch(iteration)
    if "objects" in batch:
        raise ConfigError(
            f"iteration {iteration + 1} of {task.network['name']!r} is trained with MALIS, which "
            "the legacy engine does not have here; end before it, or use the modern engine"
        )
    arrays = {"raw": _plain(task.seen(batch)[0])}
    for head in task.heads:
        target = batch[head]
        arrays[f"gt_{head}"] = _plain(target)
        arrays[f"weight_{head}"] = _plain(batch[f"{head}_weight"].expand_as(target))
    return arrays


def _plain(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def write_batch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes aside, then renames."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    atomic_write(path, content.getvalue())


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    masks, models = parse_masks(args.masks), Models(context=args.context)
    trainer, _ = make_trainer(args.settings, masks, args.output / "none", models)
    assert isinstance(trainer.task, LsdFamilyTask)
    paths = {i: args.output / f"batch_{i:09d}.npz" for i in range(args.first, args.last)}
    missing = [i for i, path in paths.items() if not path.is_file()]
    for iteration in progress(missing, len(missing), "batches", "batches"):
        write_batch(paths[iteration], as_arrays(trainer.task, iteration))


if __name__ == "__main__":
    run(main)
