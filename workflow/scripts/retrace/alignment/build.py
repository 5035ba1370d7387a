"""Builds the training of an alignment network from its settings."""

from __future__ import annotations

from pathlib import Path

import torch

from retrace.alignment.losses import Lambdas
from retrace.alignment.pairs import PairPlan, StackReader, check_stacks
from retrace.alignment.schedule import PhaseSchedule
from retrace.alignment.stack_files import StackDataset, StackPaths
from retrace.alignment.task import SeamlessTask
from retrace.alignment.training import SeamlessTrainer
from retrace.alignment.validation import pair_validation
from retrace.checkpoints.seamless import load_overlap
from retrace.device import choose_device
from retrace.networks import build_network
from retrace.networks.seamless import Seamless
from retrace.planning.align_settings import FitSettings
from retrace.records.record import work_digest
from retrace.storage.manifest import input_digest
from retrace.training.loop import TrainingPlan
from retrace.training.prefetch import DEFAULT_WORKERS
from retrace.training.state import state_files
from retrace.training.validation import ValidationCurve, validation_curve

NOT_IN_DIGEST = (
    *("epochs", "checkpoint_every", "snapshot_every", "vis_interval", "align"),
    "state_archive",
)
"""Settings of a network that do not change the weights after a given number of iterations."""


def alignment_training_digest(
    settings: FitSettings, trained: StackPaths, measured: StackPaths, init: Path | None = None
) -> str:
    """Digest of everything that decides the weights after a given number of iterations.

    `state_archive` is in it as the bytes of `init`; stacks that a training is `measured` on, if
    these measurements decide which weights are kept.
    """
    network = {k: v for k, v in settings.network.plain().items() if k not in NOT_IN_DIGEST}
    begin = input_digest(init) if init else None
    parts = [network, trained.digests, settings.seed, begin]
    if settings.selection is not None:
        parts.append([settings.selection.plain(), measured.digests])
    return work_digest(parts)


def build_alignment_trainer(
    settings: FitSettings,
    trained: StackPaths,
    measured: StackPaths,
    work: Path,
    init: Path | None = None,
) -> SeamlessTrainer:
    """Opens and checks everything a training needs; `work` is this training's own folder.

    `measured`: stacks for validation, if there are any. `init`: a model to initialise from.
    DataError for stacks that the network cannot be trained on.
    """
    network = settings.network
    dataset = StackDataset(trained.stacks, trained.masks)
    height = check_stacks(dataset, network)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    module = build_network(network, seed=settings.seed, device=device)
    if init and not state_files(work):
        load_initial_archive(init, module)
    pairs = PairPlan(
        len(dataset),
        height - 1,
        settings.seed,
        visits_per_stack=network.visits_per_stack,
        pairs_per_step=network.pairs_per_step,
    )
    task = SeamlessTask(
        network=network,
        reader=StackReader(
            dataset,
            network.contrast.equalised_radius_px,
            near_px=network.mask_neighborhood_radius,
        ),
        plan=pairs,
        schedule=PhaseSchedule(network),
        seed=settings.seed,
        device=device,
        voxel_size_nm=settings.voxel_size_nm,
        lambdas=Lambdas.of(network),
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=network.lr)
    plan = alignment_training_plan(settings, pairs, device, work)
    curve = alignment_curve(settings, task, measured)
    return SeamlessTrainer(task, module, optimizer, plan, device, validation=curve)


def alignment_curve(
    settings: FitSettings, task: SeamlessTask, measured: StackPaths
) -> ValidationCurve | None:
    """How the training is measured; None without validation stacks."""
    chosen = settings.validation
    has_data = bool(measured.stacks) and chosen.every != "never"
    data = pair_validation(task, measured, chosen.every) if has_data else None
    return validation_curve(
        chosen, data, f"validation stacks of dataset {settings.dataset!r}; set `validation_count`"
    )


def load_initial_archive(archive: Path, module: Seamless) -> None:
    """Loads the weights of an archive that fit the network, and prints those that do not."""
    mismatches = load_overlap(archive, module)
    for line in mismatches:
        print(f"[train] warning: {line}", flush=True)
    print(
        f"[train] initialised from {archive}; {len(mismatches)} weights not completely loaded",
        flush=True,
    )


def alignment_training_plan(
    settings: FitSettings, pairs: PairPlan, device: torch.device, work: Path
) -> TrainingPlan:
    """How long the training runs and how often it saves; `iterations` overrides `epochs`.

    `vis_interval` counts stacks, and overrides `snapshot_every`, which counts iterations.
    """
    network = settings.network
    every_stacks = network.vis_interval
    epochs = settings.epochs or network.epochs
    workers = settings.workers
    return TrainingPlan(
        iterations=settings.iterations or epochs * pairs.iterations_per_epoch,
        checkpoint_every=network.checkpoint_every,
        checkpoint_seconds=settings.checkpoint_seconds,
        snapshot_every=pairs.steps_per_visit * every_stacks
        if every_stacks
        else network.snapshot_every,
        workers=DEFAULT_WORKERS[device.type] if workers is None else workers,
        bf16=False,  # bf16 cannot resolve displacements of a hundredth of a pixel
        compile=False,
        work=work,
    )
