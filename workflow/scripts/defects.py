"""Defects of serial sections: trains the network that finds them, and computes masks of stacks.

defects.py train --settings JSON --stacks A.h5 ... [--held-out B.h5 ...]
                 --output defects.safetensors --history JSON
defects.py mask --settings JSON --model defects.safetensors --stacks A.h5 --output A_masks.h5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.alignment.defect_training import (
    TERMS,
    DefectPatches,
    DefectTraining,
    score_detector,
    scores_text,
)
from retrace.alignment.detector import Detector, StoredDefectNetwork, load_defect_network
from retrace.alignment.stack_files import MASKS, StackDataset
from retrace.alignment.stack_writer import write_masks
from retrace.checkpoints.safetensors import save_model
from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.device import choose_device
from retrace.errors import DataError, run
from retrace.files import atomic_write
from retrace.planning.stack_settings import MaskStacksSettings, TrainDefectsSettings
from retrace.progress import progress
from retrace.records.record import work_digest
from retrace.replacement import remove_afterwards
from retrace.storage.manifest import input_digest, write_manifest
from retrace.training.compared import number

SCORED = 64
"""Patches that the detector is scored on."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="the network, from labelled and artificial defects")
    add_job(train, file_list=["stacks", "labelled", "held_out"])
    train.add_argument("--work", required=True, type=Path, help="where its states are saved")
    train.add_argument("--history", required=True, type=Path, help="JSON of losses and score")
    mask = verbs.add_parser("mask", help="ternary masks of stacks")
    add_job(mask, file=["model"], file_list=["stacks"])
    for verb in (train, mask):
        verb.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def train_detector(args: argparse.Namespace) -> None:
    """Trains the defect network, scores it, and writes weights and history."""
    job = check(TrainDefectsSettings, args.settings, "settings of defects.py train")
    settings, seed, device = job.defects, job.seed, choose_device(job.device)
    data = StackDataset([*args.stacks, *args.labelled])
    check_labelled(args.labelled, data)
    held_out = StackDataset(args.held_out) if args.held_out else None
    patches = DefectPatches(data, settings.side, seed, held_out)
    origin = {
        "settings": job.plain(),
        "data": [input_digest(stacks.path) for stacks in data.sets],
    }
    work = args.work.with_name(f"{args.work.name}_{work_digest(origin)}")
    training = DefectTraining(patches, settings, seed, device, work)
    remaining = settings.iterations - training.progress.iteration
    for _ in progress(training.run(), remaining, "defects", "iterations"):
        pass
    detector = Detector(
        training.network,
        device,
        threshold=settings.threshold,
        smallest_px=settings.smallest_px,
        near_px=settings.near_px,
    )
    scores = score_detector(detector, patches, SCORED)
    history = {
        "terms": list(TERMS),
        "losses": [[number(term) for term in row] for row in training.progress.losses],
        "score": scores,
        "scored_on": [input_digest(path) for path in args.held_out],
        **origin,
    }
    atomic_write(args.history, json.dumps(history, indent=1) + "\n")
    stored = StoredDefectNetwork(fmaps=settings.fmaps).complete().plain()
    save_model(args.output, training.network, {"network": stored, **origin})
    remove_afterwards(work)
    print(f"[defects] {args.output}, pixels inside defects:\n{scores_text(scores)}", flush=True)


def check_labelled(paths: Sequence[Path], data: StackDataset) -> None:
    """DataError for labelled files without labels."""
    for stacks in data.sets:
        if stacks.path in paths and MASKS not in stacks.arrays:
            raise DataError(
                f"{stacks.path}: data set {stacks.name!r} has no array {MASKS!r} (N, S, H, W) with "
                "2 inside defects; add it, or remove the file from `defects: labelled`"
            )


def mask_stacks(args: argparse.Namespace) -> None:
    """Writes ternary masks of the stacks in a file."""
    begin = time.monotonic()
    settings = check(MaskStacksSettings, args.settings, "settings of defects.py mask")
    detector = Detector(
        load_defect_network(args.model),
        choose_device(settings.device),
        threshold=settings.threshold,
        smallest_px=settings.smallest_px,
        near_px=settings.near_px,
    )
    (stacks,) = args.stacks
    count = write_masks(stacks, args.output, detector, keep_existing=settings.keep_given)
    write_manifest(
        args.output,
        inputs=[stacks, args.model],
        settings=settings.plain(),
        seconds=time.monotonic() - begin,
        extra={"stacks": count},
    )
    print(f"[masks] {args.output}: masks of {count} stacks", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    {"train": train_detector, "mask": mask_stacks}[args.verb](args)


if __name__ == "__main__":
    run(main)
