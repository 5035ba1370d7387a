"""Builds a trainer from the settings of a training job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retrace.checkpoints.elektronn import SUFFIX
from retrace.checkpoints.safetensors import read_metadata
from retrace.config.families import family_of
from retrace.device import choose_own_device, uses_bf16, uses_compile
from retrace.formats.folder_kinds import H5_SUFFIXES
from retrace.networks import build_network
from retrace.planning.train_settings import TrainingDataset, TrainingExamples, TrainSettings
from retrace.planning.training_folders import data_of_states, network_of_states
from retrace.records.record import work_digest
from retrace.storage.manifest import input_digest
from retrace.storage.owned_files import RECORD as OWNED_RECORD
from retrace.training.average import WeightAverage
from retrace.training.loop import Trainer, TrainingPlan
from retrace.training.prefetch import DEFAULT_WORKERS
from retrace.training.ranks import SINGLE_PROCESS, Rank
from retrace.training.task import SetUp, TrainingInputs, WeightFiles, set_threads
from retrace.training.validation import validation_curve


def training_digest(settings: TrainSettings, weights: WeightFiles) -> str:
    """Digest of everything that decides the weights after a given number of iterations.

    The last iteration is part of it only where the learning rate falls until then.
    """
    network = network_of_states(settings.network.plain())
    if network.get("batch_size") == 1:  # the default
        del network["batch_size"]
    if not family_of(settings.network).pads_training:
        network.pop("predict_padding", None)
    dataset, volumes = _data_in_digest(settings.dataset)
    models = [_model_digest(path) if path else None for path in (weights.init, weights.context)]
    published = input_digest(weights.published) if weights.published else None
    parts = [network, dataset, volumes, settings.seed, models, published]
    if predictions := _prediction_digests(settings):
        parts.append(predictions)
    if weights.resumed is not None:
        parts.append(input_digest(weights.resumed))
    if settings.network.depends_on_length:
        parts.append({"iterations": settings.iterations})
    if settings.validation_decides:
        chosen = settings.selection and settings.selection.plain()
        parts.append([chosen, settings.dataset.plain().get("validation")])
    return work_digest(parts)


def _prediction_digests(settings: TrainSettings) -> dict[str, str]:
    """Digests of another network's predictions that are input, by volume and input node."""
    if isinstance(settings.dataset, TrainingExamples):
        return {}
    sources = {
        f"{name} {node}": Path(volume.inputs[node].path)
        for name, volume in settings.dataset.volumes.items()
        for node in settings.network.recursive
    }
    return {name: input_digest(path) for name, path in sources.items() if path.is_dir()}


def _data_in_digest(dataset: TrainingDataset | TrainingExamples) -> tuple[Any, Any]:
    """What decides the weights: entries and volumes of a dataset, or its examples and None."""
    content = data_of_states(dataset.plain())
    volumes = content.pop("volumes", None)
    return content, volumes


def _model_digest(model: Path) -> str:
    if model.suffix not in (*H5_SUFFIXES, SUFFIX):
        read_metadata(model)
    return input_digest(model)


def training_plan(settings: TrainSettings, device: torch.device, work: Path) -> TrainingPlan:
    """How often the training saves, and with which precision and workers it runs."""
    network, workers = settings.network, settings.workers
    own_limit: float | None = getattr(network, "max_runtime", None)
    return TrainingPlan(
        iterations=settings.iterations,
        checkpoint_every=network.checkpoint_every,
        checkpoint_seconds=settings.checkpoint_seconds,
        snapshot_every=network.snapshot_every,
        workers=DEFAULT_WORKERS[device.type] if workers is None else workers,
        bf16=uses_bf16(settings.precision, device),
        compile=uses_compile(settings.compile, device),
        work=work,
        max_seconds=own_limit if settings.seconds is None else settings.seconds,
    )


def build_trainer(
    settings: TrainSettings,
    masks: Mapping[str, Path],
    work: Path,
    weights: WeightFiles | None = None,
    rank: Rank = SINGLE_PROCESS,
    results: Path | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Trainer:
    """Opens and checks everything a training needs; `work` is this training's own folder.

    `masks`: the store of the labels mask of each volume that has one. `results`: the folder of the
    results, by default `work`. `measured`: the versions of files that are only measured on.
    ConfigError or DataError for settings or data that cannot be trained on.
    """
    network = settings.network
    device = choose_own_device(settings.device, rank.number, rank.count)
    set_threads(settings.threads, rank)
    module = build_network(network, seed=settings.seed)
    record = (results or work) / OWNED_RECORD
    weights = weights or WeightFiles()
    versions = measured or {}
    inputs = TrainingInputs(settings, masks, weights, work, device, rank.count, record, versions)
    set_up: SetUp = family_of(network).load("set_up_training")
    setup = set_up(inputs, module)
    decay = setup.average_decay
    return Trainer(
        task=setup.task,
        module=setup.module,
        optimizer=setup.optimizer,
        plan=training_plan(settings, device, work),
        device=device,
        average=WeightAverage(setup.module, decay) if decay else None,
        begun=setup.begun,
        rank=rank,
        rate=setup.rate,
        on_save=setup.on_save,
        validation=validation_curve(
            settings.validation,
            setup.validation,
            "patches with labels of the `validation` volumes of dataset "
            f"{settings.dataset.name!r}, and none fits; give larger ones",
        ),
    )
