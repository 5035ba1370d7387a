"""Defects of serial sections: train the network that finds them, and make masks of stacks.

defects.py train --settings JSON --stacks A.h5 ... [--held-out B.h5 ...]
                 --output defects.safetensors --history JSON
defects.py mask --settings JSON --model defects.safetensors --stacks A.h5 --output A_masks.h5
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.alignment.defect_training import (
    TERMS,
    DefectPatches,
    DefectTraining,
    score,
    scores_text,
)
from retrace.alignment.detector import Detector, described, load_detector
from retrace.alignment.stack_files import MASKS, StackDataset
from retrace.alignment.stack_writer import masks_like
from retrace.checkpoints.safetensors import save_model
from retrace.device import choose_device
from retrace.errors import ConfigError, DataError, run
from retrace.files import atomic_write, digest
from retrace.progress import progress
from retrace.storage.manifest import input_digest, manifest_path, write_manifest

SCORED = 64
"""Patches that the score is taken on."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="the network, from labelled and artificial defects")
    train.add_argument("--labelled", nargs="*", type=Path, default=[], help="stacks with masks")
    train.add_argument("--held-out", nargs="*", type=Path, default=[], help="stacks to score on")
    train.add_argument("--work", required=True, type=Path, help="where its states are saved")
    train.add_argument("--history", required=True, type=Path, help="JSON of losses and score")
    mask = verbs.add_parser("mask", help="ternary masks of stacks")
    mask.add_argument("--model", required=True, type=Path)
    for verb, number in ((train, "+"), (mask, 1)):
        verb.add_argument("--settings", required=True, help="JSON")
        verb.add_argument("--stacks", required=True, nargs=number, type=Path)
        verb.add_argument("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    try:
        args.settings = json.loads(args.settings)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--settings is not JSON ({error})") from error
    return args


def train(args: argparse.Namespace) -> None:
    settings, seed = args.settings["defects"], args.settings["seed"]
    device = choose_device(args.settings["device"])
    data = StackDataset([*args.stacks, *args.labelled])
    check_labelled(args.labelled, data)
    held_out = StackDataset(args.held_out) if args.held_out else None
    patches = DefectPatches(data, settings, seed, held_out)
    told = {"settings": args.settings, "data": [input_digest(one.path) for one in data.sets]}
    work = args.work.with_name(f"{args.work.name}_{digest(told)}")
    training = DefectTraining(patches, settings, seed, device, work)
    left = settings["iterations"] - training.progress.iteration
    for _ in progress(training.run(), left, "defects", "iterations"):
        pass
    detector = Detector(training.network, settings, device)
    found = score(detector, patches, SCORED)
    losses = training.progress.losses.tolist()
    scored_on = [input_digest(path) for path in args.held_out]
    history = {"terms": list(TERMS), "losses": losses, "score": found, "scored_on": scored_on}
    history |= told
    atomic_write(args.history, json.dumps(history, indent=1) + "\n")
    save_model(args.output, training.network, {"network": described(settings["fmaps"]), **told})
    shutil.rmtree(work)
    print(f"[defects] {args.output}, pixels inside defects:\n{scores_text(found)}", flush=True)


def check_labelled(paths: Sequence[Path], data: StackDataset) -> None:
    """Refuses labelled files without labels (DataError)."""
    for one in data.sets:
        if one.path in paths and MASKS not in one.arrays:
            raise DataError(
                f"{one.path}: data set {one.name!r} has no array {MASKS!r} (N, S, H, W) with 2 "
                "inside defects; add it, or take the file out of `defects: labelled`"
            )


def mask(args: argparse.Namespace) -> None:
    begin = time.monotonic()
    settings: dict[str, Any] = args.settings
    detector = load_detector(args.model, settings, choose_device(settings["device"]))
    (stacks,) = args.stacks
    manifest_path(args.output).unlink(missing_ok=True)
    count = masks_like(stacks, args.output, detector, keep=settings["keep_given"])
    write_manifest(
        args.output,
        inputs=[stacks, args.model],
        settings=settings,
        seconds=time.monotonic() - begin,
        extra={"stacks": count},
    )
    print(f"[masks] {args.output}: masks of {count} stacks", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.verb == "train":
        train(args)
    else:
        mask(args)


if __name__ == "__main__":
    run(main)
