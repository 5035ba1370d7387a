"""Aligns serial sections: trains a network, aligns a stack, scores it, prints a run's lineage.

    align.py train    --settings JSON --stacks S.h5 ... [--masks M.h5 ...] [--init ARCHIVE]
                      [--validation V.h5 ... [--validation-masks M.h5 ...]]
                      --work DIR --runs DIR --output model.safetensors --history training.json
    align.py stack    --settings JSON --model model.safetensors [--defects defects.safetensors]
                      --work DIR --output aligned.zarr
                      --layer DIR --field-layer DIR
    align.py evaluate --settings JSON --aligned aligned.zarr [--truth truth.zarr]
                      --output evaluation.json
    align.py lineage  --runs DIR [NAME]
    align.py schedule --settings JSON [--epochs N]

An interrupted training or alignment resumes when run again, with the same result.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.alignment.build import alignment_training_digest, build_alignment_trainer
from retrace.alignment.evaluation import evaluate_alignment
from retrace.alignment.history import alignment_history
from retrace.alignment.runs import (
    check_run_is_free,
    free_name,
    print_lineage,
    run_name,
    save_run,
)
from retrace.alignment.schedule import PhaseSchedule
from retrace.alignment.stack_files import StackPaths
from retrace.alignment.volume import align_volume
from retrace.checkpoints.safetensors import save_model, weights_digest
from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import run
from retrace.files import atomic_write
from retrace.planning.align_settings import (
    AlignSettings,
    FitSettings,
    ScheduleSettings,
    ScoreAlignmentSettings,
)
from retrace.replacement import newest
from retrace.storage.manifest import input_digest
from retrace.training.history import last_loss
from retrace.training.validation import kept_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    needed: dict[str, dict[str, Any]] = {
        "train": {"work": Path, "runs": Path, "output": Path},
        "stack": {"work": Path, "output": Path},
        "evaluate": {"output": Path},
        "lineage": {"runs": Path},
        "schedule": {"settings": json.loads},
    }
    subparsers = {verb: verbs.add_parser(verb) for verb in needed}
    for verb, options in needed.items():
        for name, kind in options.items():
            subparsers[verb].add_argument(f"--{name}", required=True, type=kind)
    stacks = ["stacks", "masks", "validation", "validation_masks"]
    add_job(subparsers["train"], file_list=stacks, optional_file=["init"])
    add_job(subparsers["stack"], file=["model"], optional_file=["defects"])
    add_job(subparsers["evaluate"], file=["aligned"], optional_file=["truth"])
    subparsers["train"].add_argument("--history", required=True, type=Path)
    for name in ("layer", "field-layer"):
        subparsers["stack"].add_argument(f"--{name}", required=True, type=Path)
    subparsers["stack"].add_argument("--threads", type=int, default=1)
    subparsers["lineage"].add_argument("name", nargs="?")
    subparsers["schedule"].add_argument("--epochs", type=int)
    return parse_job(parser, argv)


def train_alignment(args: argparse.Namespace) -> None:
    """Trains a network; the model is also saved under the name of the run."""
    begin = time.monotonic()
    settings = check(FitSettings, args.settings, "settings of align.py train")
    trained = StackPaths(args.stacks, args.masks)
    measured = StackPaths(args.validation, args.validation_masks)
    training = alignment_training_digest(settings, trained, measured, args.init)
    experiment = f"{settings.dataset}_{settings.network.name}"
    work = args.work / f"{experiment}_{training}"
    trainer = build_alignment_trainer(settings, trained, measured, work, args.init)
    end = trainer.plan.iterations
    name = run_name(settings.run, experiment, training, end)
    check_run_is_free(args.runs, name, training, end)
    print(f"[train] run {name} until iteration {end}", flush=True)
    outcome = trainer.run()
    weights = weights_digest(trainer.result)
    name = free_name(args.runs, name, weights)
    facts = {
        "network": settings.network.plain(),
        "dataset": settings.dataset,
        "training_digest": training,
        "loss": last_loss(outcome),
        **kept_state(trainer.validation, outcome.iteration),
    }
    save_model(args.output, trainer.result, {**facts, "iteration": outcome.iteration, "run": name})
    parent = {"path": str(args.init), "digest": input_digest(args.init)} if args.init else None
    record = {
        "seed": settings.seed,
        "iterations": outcome.iteration,
        "requested": end,
        "iterations_per_epoch": trainer.seamless.plan.iterations_per_epoch,
        "parent": parent,
        "weights": weights,
    }
    save_run(args.runs, name, newest(args.output), {**facts, **record})
    history = alignment_history(outcome, trainer.seamless.plan, trainer.validation)
    content = {"run": name, **history}
    content["seconds"] = round(time.monotonic() - begin, 3)
    atomic_write(args.history, json.dumps(content, indent=1) + "\n")
    print(f"[train] loss {facts['loss']} -> {args.output}, run {name}", flush=True)


def align_stack(args: argparse.Namespace) -> None:
    """Aligns a stack: a zarr, and layers of its images and fields."""
    speed = align_volume(
        check(AlignSettings, args.settings, "settings of align.py stack"),
        args.model,
        args.defects,
        args.work,
        args.output,
        layer=args.layer,
        field_layer=args.field_layer,
        threads=args.threads,
    )
    print(f"[align] {speed} megapixels/s -> {args.output}", flush=True)


def score_alignment(args: argparse.Namespace) -> None:
    """Scores an aligned stack and prints the table."""
    settings = check(ScoreAlignmentSettings, args.settings, "settings of align.py evaluate")
    print(evaluate_alignment(settings, args.aligned, args.truth, args.output), flush=True)


def print_schedule(args: argparse.Namespace) -> None:
    """Prints what each epoch trains."""
    network = check(ScheduleSettings, args.settings, "settings of align.py schedule").network
    print("\n".join(PhaseSchedule(network).trace(args.epochs or network.epochs)))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    verbs = {
        "train": train_alignment,
        "stack": align_stack,
        "evaluate": score_alignment,
        "lineage": lambda chosen: print_lineage(chosen.runs, chosen.name),
        "schedule": print_schedule,
    }
    verbs[args.verb](args)


if __name__ == "__main__":
    run(main)
