"""Trains a network until an iteration; killed at any moment and run again, it goes on.

With `gpus` above 1 in the settings as many processes share every batch, a GPU each.

The state lives in WORK/DATASET_NETWORK_DIGEST, the digest naming all settings that change the
result. Snapshots (zarr) and TensorBoard scalars lie there too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrace.checkpoints.safetensors import save_model
from retrace.command_line import named_paths
from retrace.config.compatibility import check_division
from retrace.device import check_devices
from retrace.errors import run
from retrace.files import atomic_write
from retrace.storage.volumes import noting_opened, origin_of
from retrace.training.build import make_trainer, training_digest
from retrace.training.elektronn_family import ElektronnTask
from retrace.training.elektronn_pictures import curve_pictures
from retrace.training.example_batches import ExampleBatches
from retrace.training.history import history, last_loss
from retrace.training.loop import Outcome
from retrace.training.parallel import run_in_processes
from retrace.training.ranks import ALONE, Rank
from retrace.training.state import Progress
from retrace.training.task import Models
from retrace.training.znn_saving import learning_curve

EMA_BEGIN, EMA = 0.65, 0.995
"""First value and factor of the smoothed loss in ELEKTRONN's history (trainer.py)."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="JSON object")
    parser.add_argument("--masks", nargs="*", default=[], metavar="VOLUME=PATH")
    parser.add_argument("--work", required=True, type=Path, help="folder of resumable work")
    parser.add_argument("--output", required=True, type=Path, help="model.safetensors")
    parser.add_argument("--history", required=True, type=Path, help="training.json")
    parser.add_argument("--context", type=Path, help="model that an auto-context network reads")
    parser.add_argument("--published", type=Path, help="folder of a checkpoint to go on from")
    parser.add_argument("--init", type=Path, help="model.safetensors, or h5 of ZNN, to begin from")
    return parser.parse_args(argv)


def history_rows(task: ElektronnTask, outcome: Outcome) -> list[dict[str, Any]]:
    """ELEKTRONN's history: what was measured, and the loss smoothed over all iterations."""
    smooth, ema = [], EMA_BEGIN
    for value in outcome.losses[:, 0].tolist():
        ema = EMA * ema + (1 - EMA) * value
        smooth.append(ema)
    rows = [row for row in task.rows if row["iteration"] <= outcome.iteration]
    rows = [{**row, "loss_ema": smooth[row["iteration"] - 1]} for row in rows]
    curve_pictures(rows, task.work)
    return rows


def train(rank: Rank, args: argparse.Namespace) -> None:
    """The whole training, or the part of one of its processes; the first one writes the results."""
    begin = time.monotonic()
    settings = args.settings
    models = Models(args.init, args.context, args.published)
    training = training_digest(settings, models)
    name = f"{settings['dataset']['name']}_{settings['network']['name']}_{training}"
    with noting_opened() as opened:
        trainer, _ = make_trainer(settings, named_paths(args.masks), args.work / name, models, rank)
    print(f"[train] {name} on {trainer.device} until {settings['iterations']}", flush=True)
    outcome = trainer.run()
    if not rank.is_first:
        return
    metadata = {
        "network": settings["network"],
        "dataset": settings["dataset"]["name"],
        "iteration": outcome.iteration,
        "training_digest": training,
        "loss": last_loss(outcome),
    }
    seconds = time.monotonic() - begin
    content = history(settings, outcome, seconds)
    weights = [path for path in (models.init, models.context, models.published) if path]
    content["origin"] = origin_of(opened, weights, settings, seconds)
    if settings["network"]["family"] == "znn":
        every = settings["network"]["num_iter_per_show"]
        done = Progress(outcome.iteration, outcome.terms, outcome.losses)
        content["learning_curve"] = learning_curve(done, every, args.work / name)
    if isinstance(trainer.task, ElektronnTask):
        content["learning_curve"] = history_rows(trainer.task, outcome)
        if isinstance(trainer.task.data, ExampleBatches):
            metadata["input_mean"] = trainer.task.data.mean
    atomic_write(args.history, json.dumps(content, indent=1) + "\n")
    save_model(args.output, trainer.result, metadata)
    print(f"[train] loss {metadata['loss']} -> {args.output}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    network, gpus = args.settings["network"], args.settings.get("gpus", 1)
    check_division(network["name"], network.get("batch_size", 1), gpus)
    if gpus == 1:
        train(ALONE, args)
    else:
        kind = check_devices(args.settings["device"], gpus)
        run_in_processes(partial(train, args=args), gpus, kind)


if __name__ == "__main__":
    run(main)
