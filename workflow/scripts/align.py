"""Aligns serial sections: trains a network, aligns a stack, scores it, tells whence a run came.

    align.py train    --settings JSON --stacks S.h5 ... [--masks M.h5 ...] [--init ARCHIVE]
                      --work DIR --runs DIR --output model.safetensors --history training.json
    align.py stack    --settings JSON --model model.safetensors --work DIR --output aligned.zarr
                      --layer DIR --field-layer DIR
    align.py evaluate --settings JSON --aligned aligned.zarr [--truth truth.zarr]
                      --output evaluation.json
    align.py lineage  --runs DIR [NAME]
    align.py schedule --settings JSON [--epochs N]

Training and alignment, killed at any moment and run again, go on where they were with the same
result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.alignment.aligner import (
    ALIGNED,
    FIELD,
    RENDERED,
    AlignedStack,
    Aligner,
    Plan,
    check_fine,
    megapixels,
)
from retrace.alignment.build import make_trainer, training_digest
from retrace.alignment.metrics import table
from retrace.alignment.pairs import PairPlan
from retrace.alignment.runs import check_free, keep, lineage, read_runs, run_name, told
from retrace.alignment.schedule import Schedule
from retrace.alignment.scoring import Scorer, Truth, before_after, plot, score_stack
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.device import choose_device
from retrace.errors import ConfigError, run
from retrace.files import atomic_write, digest
from retrace.networks.seamless import build_seamless
from retrace.storage.manifest import check_manifest, input_digest, write_manifest
from retrace.storage.precomputed_writer import LayerWriter, plan_layer
from retrace.storage.reads import local_paths, origin_of_opened, remote_reads
from retrace.storage.value_checks import check_raw_type
from retrace.storage.volumes import Volume, open_source, open_volume, recording_opened
from retrace.storage.zarr_writer import publish
from retrace.training.loop import TrainingOutcome

HISTORY_ROWS = 2000
LAST = 100
"""Iterations whose mean loss is written beside the weights."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    needed: dict[str, dict[str, Any]] = {
        "train": {"settings": json.loads, "work": Path, "runs": Path, "output": Path},
        "stack": {"settings": json.loads, "model": Path, "work": Path, "output": Path},
        "evaluate": {"settings": json.loads, "aligned": Path, "output": Path},
        "lineage": {"runs": Path},
        "schedule": {"settings": json.loads},
    }
    found = {verb: verbs.add_parser(verb) for verb in needed}
    for verb, options in needed.items():
        for name, kind in options.items():
            found[verb].add_argument(f"--{name}", required=True, type=kind)
    found["train"].add_argument("--stacks", required=True, nargs="+", type=Path)
    found["train"].add_argument("--masks", nargs="*", default=[], type=Path)
    found["train"].add_argument("--init", type=Path, help="archive to begin from")
    found["train"].add_argument("--history", required=True, type=Path)
    for name in ("layer", "field-layer"):
        found["stack"].add_argument(f"--{name}", required=True, type=Path)
    found["stack"].add_argument("--threads", type=int, default=1)
    found["evaluate"].add_argument("--truth", type=Path)
    found["lineage"].add_argument("name", nargs="?")
    found["schedule"].add_argument("--epochs", type=int)
    return parser.parse_args(argv)


# ---------------------------------------------------------------- train


def history(outcome: TrainingOutcome, plan: PairPlan) -> dict[str, Any]:
    """The content of training.json: terms averaged over equal stretches of iterations."""
    count = len(outcome.losses)
    stretch = max(1, -(-count // HISTORY_ROWS))
    rows = []
    for begin in range(0, count, stretch):
        part = outcome.losses[begin : begin + stretch].double().mean(dim=0).tolist()
        end = min(begin + stretch, count)
        row = {"iteration": end, "epoch": plan.epoch(end - 1)}
        rows.append(row | dict(zip(outcome.terms, part, strict=True)))
    return {
        "iterations": outcome.iteration,
        "iterations_per_epoch": plan.iterations_per_epoch,
        "iterations_this_run": outcome.done_here,
        "iterations_per_second": round(outcome.done_here / max(outcome.seconds, 1e-9), 4),
        "terms": list(outcome.terms),
        "history": rows,
    }


def train(args: argparse.Namespace) -> None:
    """The whole training; its archive is also kept under the name of the run."""
    begin = time.monotonic()
    settings, training = args.settings, training_digest(args)
    experiment = f"{settings['dataset']}_{settings['network']['name']}"
    name = run_name(settings["run"], experiment, training)
    check_free(args.runs, name, training)
    trainer = make_trainer(args, args.work / f"{experiment}_{training}")
    print(f"[train] run {name} until iteration {trainer.plan.iterations}", flush=True)
    outcome = trainer.run()
    metadata = {
        "network": settings["network"],
        "dataset": settings["dataset"],
        "iteration": outcome.iteration,
        "training_digest": training,
        "run": name,
        "loss": last_loss(outcome),
    }
    save_model(args.output, trainer.module, metadata)
    record = {
        "dataset": settings["dataset"],
        "network": settings["network"],
        "seed": settings["seed"],
        "training_digest": training,
        "iterations": outcome.iteration,
        "loss": metadata["loss"],
        "parent": {"path": str(args.init), "digest": input_digest(args.init)}
        if args.init
        else None,
    }
    keep(args.runs, name, args.output, record)
    content = {"run": name, **history(outcome, trainer.seamless.plan)}
    content["seconds"] = round(time.monotonic() - begin, 3)
    atomic_write(args.history, json.dumps(content, indent=1) + "\n")
    print(f"[train] loss {metadata['loss']} -> {args.output}, run {name}", flush=True)


def last_loss(outcome: TrainingOutcome) -> float:
    """Mean loss of the last iterations."""
    minimised = outcome.losses.shape[1] - outcome.observed
    return round(float(outcome.losses[-LAST:, :minimised].double().sum(dim=1).mean()), 6)


# ---------------------------------------------------------------- align


def align_stack(args: argparse.Namespace) -> None:
    """The stack as a zarr, and as layers of the images and of the fields."""
    begin = time.monotonic()
    settings, network = args.settings, args.settings["network"]
    device = choose_device(settings["device"])
    module = build_seamless(network, device=device)
    load_model(args.model, module, network)
    sections = open_source(settings["sections"])
    fine = open_source(settings["fine"]) if settings["fine"] else None
    check_raw_type(sections)
    if fine is not None:
        check_fine(sections, fine)
    work = work_folder(args)
    partial = work / "aligned.zarr"
    stack = AlignedStack(partial, work / "journal", sections, fine)
    Aligner(module.eval(), network, Plan.of(network["align"]), device).run(stack)
    seconds = stack.seconds()
    inputs = [args.model, *local_paths([settings["sections"]])]
    write_layers(args, stack, work)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    publish(partial, args.output)
    pixels = megapixels(sections)
    extra = {"megapixels": pixels, "megapixels_per_second": round(pixels / max(seconds, 1e-9), 4)}
    read = remote_reads(sections, fine)
    spent = time.monotonic() - begin
    for layer in (args.layer, args.field_layer):
        write_manifest(layer, inputs=[args.output], settings=settings, seconds=spent)
    write_manifest(
        args.output, inputs=inputs, settings=settings, seconds=spent, extra=extra, read=read
    )
    shutil.rmtree(work)
    print(f"[align] {extra['megapixels_per_second']} megapixels/s -> {args.output}", flush=True)


def work_folder(args: argparse.Namespace) -> Path:
    """Where this alignment's unfinished work lies: another model or setting, another folder."""
    name = digest([args.settings, input_digest(args.model)])
    found: Path = (
        args.work / f"{args.settings['dataset']}_{args.settings['network']['name']}_{name}"
    )
    return found


def write_layers(args: argparse.Namespace, stack: AlignedStack, work: Path) -> None:
    """The aligned sections and their fields for neuroglancer and CloudVolume."""
    image = RENDERED if stack.fine is not None else ALIGNED
    for name, folder in ((image, args.layer), (FIELD, args.field_layer)):
        volume = stack.volume(name)
        plan = plan_layer(volume, volume.box, labels=False, compress=args.settings["gzip"])
        LayerWriter(folder, work / f"layer_{name}", plan).write(volume, args.threads)


# ---------------------------------------------------------------- evaluate


def evaluate(args: argparse.Namespace) -> None:
    """evaluation.json, and beside it alignment.txt, alignment.png and before_after.png."""
    begun, settings = time.monotonic(), args.settings
    facts = check_manifest(args.aligned)
    with recording_opened() as read:
        sections = open_source(settings["sections"])
        truth = Truth.open(args.truth, sections) if args.truth else None
        scorer = Scorer(sections, opened(args.aligned, ALIGNED), opened(args.aligned, FIELD), truth)
        depth = sections.box.shape[0]
        held_out_from = depth - int(depth * settings["test_fraction"])
        scores = score_stack(scorer, held_out_from)
        folder = args.output.parent
        atomic_write(folder / "alignment.png", plot(scores))
        atomic_write(folder / "before_after.png", before_after(scorer))
    text = table(scores)
    atomic_write(folder / "alignment.txt", text)
    content = {
        "dataset": settings["dataset"],
        "network": settings["network"],
        "voxel_size_nm": list(sections.voxel_size_nm),
        "held_out_from": held_out_from,
        "megapixels_per_second": facts.get("megapixels_per_second"),
        **scores,
        "origin": origin_of_opened(read, [], settings, time.monotonic() - begun),
    }
    atomic_write(args.output, json.dumps(content, indent=1) + "\n")
    print(text, flush=True)


def opened(store: Path, array: str) -> Volume:
    """An array of the aligned store."""
    return open_volume(store, array)


# ---------------------------------------------------------------- lineage


def show_lineage(args: argparse.Namespace) -> None:
    """A run and those it came from; without a name, all runs."""
    known = read_runs(args.runs)
    if not known:
        raise ConfigError(f"no runs in {args.runs}; train first")
    chosen = lineage(args.runs, args.name) if args.name else known.values()
    for record in chosen:
        print(told(record, known))


def show_schedule(args: argparse.Namespace) -> None:
    """What each epoch trains."""
    network = args.settings["network"]
    print("\n".join(Schedule(network).trace(args.epochs or network["epochs"])))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    verbs = {
        "train": train,
        "stack": align_stack,
        "evaluate": evaluate,
        "lineage": show_lineage,
        "schedule": show_schedule,
    }
    verbs[args.verb](args)


if __name__ == "__main__":
    run(main)
