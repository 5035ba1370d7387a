"""Builds the training of an alignment network from its settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retrace.alignment.losses import Lambdas
from retrace.alignment.pairs import PairPlan, StackReader, check_stacks
from retrace.alignment.schedule import Schedule
from retrace.alignment.stack_files import StackDataset
from retrace.alignment.training import SeamlessTask, SeamlessTrainer
from retrace.checkpoints.seamless import load_overlap
from retrace.device import choose_device
from retrace.files import digest
from retrace.geometry import triple
from retrace.networks.seamless import Seamless, build_seamless
from retrace.storage.manifest import input_digest
from retrace.training.loop import TrainingPlan
from retrace.training.state import state_files

CHECKPOINT_SECONDS = 300.0


NOT_IN_DIGEST = ("epochs", "checkpoint_every", "snapshot_every", "align")
"""Settings of a network that do not change the weights after a given number of iterations."""


def training_digest(args: argparse.Namespace) -> str:
    """Names everything that decides the weights at a given iteration."""
    network = {k: v for k, v in args.settings["network"].items() if k not in NOT_IN_DIGEST}
    read = [input_digest(path) for path in (*args.stacks, *args.masks)]
    init = input_digest(args.init) if args.init else None
    return digest([network, read, args.settings["seed"], init])


def make_trainer(args: argparse.Namespace, work: Path) -> SeamlessTrainer:
    """Everything a training needs, checked; `work` is this training's folder."""
    settings, network = args.settings, args.settings["network"]
    dataset = StackDataset(args.stacks, args.masks)
    height = check_stacks(dataset, network)
    device = choose_device(settings["device"])
    if settings.get("threads"):
        torch.set_num_threads(settings["threads"])
    module = build_seamless(network, seed=settings["seed"], device=device)
    if args.init and not state_files(work):
        begin_from(args.init, module)
    plan = PairPlan(len(dataset), height - 1, network, settings["seed"])
    task = SeamlessTask(
        network,
        StackReader(dataset, network),
        plan,
        Schedule(network),
        settings["seed"],
        device,
        triple(settings["voxel_size_nm"]),
        Lambdas.of(network),
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=network["lr"])
    return SeamlessTrainer(task, module, optimizer, make_plan(settings, plan, device, work), device)


def begin_from(archive: Path, module: Seamless) -> None:
    """Fills the network with what fits of an archive and lists what does not."""
    told_lines = load_overlap(archive, module)
    for line in told_lines:
        print(f"[train] warning: {line}", flush=True)
    print(f"[train] begins from {archive}, {len(told_lines)} weights not wholly loaded", flush=True)


def make_plan(
    settings: Mapping[str, Any], plan: PairPlan, device: torch.device, work: Path
) -> TrainingPlan:
    network = settings["network"]
    epochs = settings["epochs"] or network["epochs"]
    workers = settings.get("workers")
    return TrainingPlan(
        iterations=settings["iterations"] or epochs * plan.iterations_per_epoch,
        checkpoint_every=network["checkpoint_every"],
        checkpoint_seconds=settings.get("checkpoint_seconds", CHECKPOINT_SECONDS),
        snapshot_every=network["snapshot_every"],
        workers=(2 if device.type == "cuda" else 0) if workers is None else workers,
        bf16=False,  # displacements of a hundredth of a pixel do not survive 8 bits
        compile=False,
        work=work,
    )
