"""Sends the training batches of train.py through a pipe to the legacy engine.

Both engines thus train on the same voxels. The first message is a header (JSON: dataset, network,
seed, folder, first, last, every, voxel_size_nm). Each further one is the batch of an iteration as
.npz: `raw`, the network's input (C, Z, Y, X), and per head `gt_HEAD` and `weight_HEAD`, all
float32. Where a snapshot is due, it also has `picture_NAME` and `place_NAME` (nm) of its arrays. A
message is its length (8 bytes, little-endian) and its bytes (legacy/stream.py).
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
from retrace.command_line import add_job, parse_job
from retrace.errors import ConfigError, DataError, run
from retrace.files import digest
from retrace.planning.train_settings import (
    TrainingDataset,
    TrainSettings,
    read_train_settings,
)
from retrace.progress import progress
from retrace.records.record import running_job
from retrace.training.build import build_trainer, training_digest
from retrace.training.lsd_family import LsdFamilyTask
from retrace.training.other_states import note_identity
from retrace.training.snapshots import as_stored, is_shown
from retrace.training.task import WeightFiles


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    weights = ["init", "context", "published"]
    add_job(parser, files_by_name=["masks"], optional_file=weights)
    parser.add_argument(
        "--work", required=True, type=Path, help="folder in which the legacy engine works"
    )
    parser.add_argument("--output", required=True, type=Path, help="pipe")
    return parse_job(parser, argv)


def as_arrays(task: LsdFamilyTask, iteration: int, *, shown: bool) -> dict[str, np.ndarray]:
    """One batch as input of the graph of mknet.py, float32; weights have the shape of targets.

    `shown`: with the arrays of a snapshot and their places, to which the prediction is added there.
    """
    batch = task.batch(iteration)
    if "objects" in batch:
        raise ConfigError(
            f"iteration {iteration + 1} of {task.network.name!r} is trained with MALIS, which "
            "the legacy engine does not support; train fewer iterations, or use the modern engine"
        )
    arrays = {"raw": _numpy(task.network_input(batch)[0])}
    for head in task.heads:
        target = batch[head]
        arrays[f"gt_{head}"] = _numpy(target)
        arrays[f"weight_{head}"] = _numpy(batch[f"{head}_weight"].expand_as(target))
    for name, picture in task.pictures({}, batch).items() if shown else ():
        arrays[f"picture_{name}"] = as_stored(picture)
        arrays[f"place_{name}"] = np.array(picture.offset_nm)
    return arrays


def _numpy(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def write_message(pipe: BinaryIO, content: bytes) -> None:
    """Writes one message: length and bytes."""
    pipe.write(struct.pack("<Q", len(content)))
    pipe.write(content)
    pipe.flush()


def write_batch(pipe: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one batch as an .npz."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_message(pipe, content.getvalue())


def checkpoint_iteration(*folders: Path | None) -> int:
    """The iteration of the checkpoint in the first folder that has one; 0 without any."""
    for folder in folders:
        if folder is not None and folder.is_dir():
            try:
                return find_checkpoint(folder)[1]
            except DataError:
                continue
    return 0


def _state_digest(
    settings: TrainSettings, weights: WeightFiles, execution: Mapping[str, Any]
) -> str:
    """Names the folder of the states: other programs, or another image, have their own."""
    return digest([training_digest(settings, weights), execution.get("trainer")])


def header(args: argparse.Namespace) -> dict[str, Any]:
    """The header that the legacy engine receives before the first batch.

    In a job, notes next to the states what they depend on.
    """
    settings = read_train_settings(args.settings)
    weights = WeightFiles(context=args.context, published=args.published)
    network, dataset = settings.network, settings.dataset.name
    assert isinstance(settings.dataset, TrainingDataset)
    name = f"{dataset}_{network.name}_{_state_digest(settings, weights, args.execution)}"
    note_identity(args.work / name, running_job())
    return {
        "dataset": dataset,
        "network": network.plain(),
        "seed": settings.seed,
        "folder": name,
        "first": checkpoint_iteration(args.work / name, args.published),
        "last": settings.iterations,
        "every": network.checkpoint_every,
        "voxel_size_nm": settings.dataset.voxel_size_nm,
    }


def send(args: argparse.Namespace, pipe: BinaryIO) -> None:
    """Sends the header and the remaining batches; none if the legacy engine has finished."""
    head = header(args)
    write_message(pipe, json.dumps(head).encode())
    iterations = range(head["first"], head["last"])
    if not iterations:
        return
    masks, weights = args.masks, WeightFiles(context=args.context)
    trainer = build_trainer(read_train_settings(args.settings), masks, args.work / "none", weights)
    assert isinstance(trainer.task, LsdFamilyTask)
    every = trainer.plan.snapshot_every
    for number in progress(iterations, len(iterations), "batches", "batches"):
        shown = is_shown(number + 1, head["first"] + 1, head["last"], every)
        write_batch(pipe, as_arrays(trainer.task, number, shown=shown))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # Opening the pipe waits for the legacy engine, so it comes first.
    with args.output.open("wb") as pipe:
        send(args, pipe)


if __name__ == "__main__":
    run(main)
