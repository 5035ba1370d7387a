"""Trains a network until a number of iterations; an interrupted training resumes when run again.

With `gpus` above 1 in the settings, that many processes, one per GPU, divide each batch.

The state is in WORK/DATASET_NETWORK_DIGEST; the digest covers all settings that change the result.
Snapshots (zarr) and TensorBoard scalars are in the same folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from retrace.checkpoints.safetensors import save_model
from retrace.command_line import add_job, parse_job
from retrace.config.compatibility import check_division
from retrace.device import check_devices, choose_device, uses_bf16
from retrace.errors import run
from retrace.files import atomic_write
from retrace.planning.train_settings import TrainSettings, read_train_settings
from retrace.records.record import note_resolved, running_job
from retrace.replacement import replacing_together
from retrace.storage.reads import origin_of_opened, same_version
from retrace.storage.volumes import recording_opened
from retrace.training.build import build_trainer, training_digest
from retrace.training.history import last_loss, training_history
from retrace.training.other_states import note_identity, other_states
from retrace.training.parallel import run_in_processes
from retrace.training.ranks import SINGLE_PROCESS, Rank
from retrace.training.task import WeightFiles
from retrace.training.validation import kept_state

Versions = Mapping[str, Mapping[str, str]]
"""Versions of files, by path."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    weights = ["init", "context", "published", "resumed"]
    add_job(parser, files_by_name=["masks"], optional_file=weights)
    parser.add_argument("--work", required=True, type=Path, help="folder of resumable work")
    parser.add_argument("--output", required=True, type=Path, help="model.safetensors")
    parser.add_argument("--history", required=True, type=Path, help="training.json")
    return parse_job(parser, argv)


def prepare_folder(work: Path, settings: TrainSettings, training: str) -> None:
    """Notes what the training depends on; names those of the experiment that it does not resume."""
    experiment, decides = _experiment(settings), settings.validation_decides
    folder = work / f"{experiment}_{training}"
    for line in other_states(folder, experiment, running_job(), validation_decides=decides):
        print(f"[train] {line}", flush=True)
    note_identity(folder, running_job())


def _experiment(settings: TrainSettings) -> str:
    """The name of the dataset and the network together, with which work folders begin."""
    return f"{settings.dataset.name}_{settings.network.name}"


def train(rank: Rank, args: argparse.Namespace, training: str, measured: Versions) -> None:
    """Runs the training, or one of its processes; the first process writes the results."""
    begin = time.monotonic()
    settings = read_train_settings(args.settings)
    weights = weight_files(args)
    name = f"{_experiment(settings)}_{training}"
    with recording_opened() as opened:
        results = args.output.parent
        work = args.work / name
        trainer = build_trainer(settings, args.masks, work, weights, rank, results, measured)
    print(f"[train] {name} on {trainer.device} until {settings.iterations}", flush=True)
    with same_version(work, *(volume for _, volume in opened)):
        outcome = trainer.run()
    if not rank.is_first:
        return
    seconds = time.monotonic() - begin
    content = training_history(settings, outcome, seconds, trainer.validation)
    content["origin"] = origin_of_opened(opened, weights.present, settings.plain(), seconds)
    content |= trainer.task.history(outcome.progress, work)
    atomic_write(args.history, json.dumps(content, indent=1) + "\n")
    metadata = {
        "network": settings.network.plain(),
        "dataset": settings.dataset.name,
        "iteration": outcome.iteration,
        "training_digest": training,
        "loss": last_loss(outcome),
        **trainer.task.metadata,
        **kept_state(trainer.validation, outcome.iteration),
    }
    save_model(args.output, trainer.result, metadata)
    print(f"[train] loss {metadata['loss']} -> {args.output}", flush=True)


def train_in_process(
    rank: Rank, args: argparse.Namespace, training: str, measured: Versions
) -> None:
    """Runs one of several processes; the first one replaces model and history together."""
    with replacing_together([args.output, args.history]):
        train(rank, args, training, measured)


def weight_files(args: argparse.Namespace) -> WeightFiles:
    """The weights that the training begins from or reads."""
    return WeightFiles(args.init, args.context, args.published, args.resumed)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_train_settings(args.settings)
    check_division(settings.network.name, settings.network.batch_size, settings.gpus)
    device = choose_device(settings.device)
    note_resolved("precision", "bf16" if uses_bf16(settings.precision, device) else "fp32")
    training = training_digest(settings, weight_files(args))
    prepare_folder(args.work, settings, training)
    job = running_job()
    measured = {} if job is None else job.measured_versions()
    if settings.gpus == 1:
        train(SINGLE_PROCESS, args, training, measured)
    else:
        kind = check_devices(settings.device, settings.gpus)
        work = partial(train_in_process, args=args, training=training, measured=measured)
        run_in_processes(work, settings.gpus, kind)


if __name__ == "__main__":
    run(main)
