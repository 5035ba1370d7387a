"""Builds a trainer from the settings of a training job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retrace.checkpoints.elektronn import SUFFIX
from retrace.checkpoints.safetensors import read_metadata
from retrace.device import choose_own_device, uses_bf16, uses_compile
from retrace.files import digest
from retrace.formats.hdf5_tiff import H5_SUFFIXES
from retrace.networks import ZnnNetwork, build_network
from retrace.storage.manifest import input_digest
from retrace.training.average import WeightAverage
from retrace.training.elektronn_family import make_elektronn
from retrace.training.loop import Plan, Trainer
from retrace.training.lsd_family import make_lsd
from retrace.training.ranks import ALONE, Rank
from retrace.training.state import state_files
from retrace.training.task import Models, set_threads
from retrace.training.znn_family import make_znn
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.training.znn_saving import NetFiles

CHECKPOINT_SECONDS = 300.0


NOT_IN_DIGEST = (
    "iterations",
    "checkpoint_every",
    "snapshot_every",
    "inference_shape",
    "forward_outsz",
    "forward_conv_mode",
    "num_iter_per_show",
    "num_iter_per_test",
    "test_num",
    "net_files",
    "n_steps",
    "max_runtime",
)
"""Settings of a network that do not change the weights after a given number of iterations."""


def training_digest(settings: Mapping[str, Any], models: Models) -> str:
    """Names everything that decides the weights at a given iteration."""
    network = {k: v for k, v in settings["network"].items() if k not in NOT_IN_DIGEST}
    if network.get("batch_size") == 1:  # what it is where it is not given
        del network["batch_size"]
    if network["family"] != "znn":
        network.pop("predict_padding", None)
    dataset, volumes = _digested_data(settings["dataset"])
    read = [_model_digest(model) if model else None for model in (models.init, models.context)]
    published = input_digest(models.published) if models.published else None
    made = _made_inputs(settings)
    parts = [network, dataset, volumes, settings["seed"], read, published]
    return digest([*parts, made] if made else parts)


def _made_inputs(settings: Mapping[str, Any]) -> dict[str, str]:
    """Digests of what another network predicted of the volumes, by volume and input node."""
    nodes = settings["network"].get("recursive", {})
    sources = {
        f"{name} {node}": Path(volume["inputs"][node]["path"])
        for name, volume in settings["dataset"].get("volumes", {}).items()
        for node in nodes
    }
    return {name: input_digest(path) for name, path in sources.items() if path.is_dir()}


def _digested_data(told: Mapping[str, Any]) -> tuple[Any, Any]:
    """What of a dataset decides the weights: entries and volumes, or examples."""
    if "examples" in told:
        return {k: v for k, v in told["examples"].items() if k not in ("test", "fetch")}, None
    dataset = {k: told.get(k) for k in ("voxel_size_nm", "background_ids", "train")}
    used = {entry["volume"] for entry in told["train"]}
    return dataset, {name: told["volumes"][name] for name in sorted(used)}


def _model_digest(model: Path) -> str:
    if model.suffix not in (*H5_SUFFIXES, SUFFIX):
        read_metadata(model)
    return input_digest(model)


def make_plan(settings: Mapping[str, Any], device: torch.device, work: Path) -> Plan:
    network = settings["network"]
    workers = settings.get("workers")
    return Plan(
        iterations=settings["iterations"],
        checkpoint_every=network["checkpoint_every"],
        checkpoint_seconds=settings.get("checkpoint_seconds", CHECKPOINT_SECONDS),
        snapshot_every=network["snapshot_every"],
        workers=(2 if device.type == "cuda" else 0) if workers is None else workers,
        bf16=uses_bf16(settings["precision"], device),
        compile=uses_compile(settings["compile"], device),
        work=work,
        max_seconds=settings.get("seconds", network.get("max_runtime")),
    )


def make_trainer(
    settings: Mapping[str, Any],
    masks: Mapping[str, Path],
    work: Path,
    models: Models | None = None,
    rank: Rank = ALONE,
) -> tuple[Trainer, Any]:
    """Everything a training needs, checked, and its network; `work` is this training's folder."""
    models = models or Models()
    network = settings["network"]
    device = choose_own_device(settings["device"], rank.number, rank.count)
    set_threads(settings.get("threads"), rank)
    module = build_network(network, seed=settings["seed"])
    is_new = not state_files(work)
    if network["family"] == "elektronn":
        task, optimizer, module, begun = make_elektronn(
            settings, masks, models, work, module=module, device=device
        )
    else:
        family = make_znn if network["family"] == "znn" else make_lsd
        task, optimizer, module, begun = family(
            settings, masks, models, is_new, module=module, device=device, processes=rank.count
        )
    decay = average_decay(network)
    average = WeightAverage(module, decay) if decay else None
    plan = make_plan(settings, device, work)
    trainer = Trainer(task, module, optimizer, plan, device, average, begun, rank)
    if (
        "net_files" in network
        and isinstance(module, ZnnNetwork)
        and isinstance(optimizer, ZnnOptimizer)
    ):
        trainer.on_save = NetFiles(network, module, optimizer, work)
    return trainer, module


def average_decay(network: Mapping[str, Any]) -> float | None:
    """Decay of the mean weights that are kept beside the training, if they are."""
    told = network if network["family"] == "elektronn" else network.get("optimizer", {})
    return told.get("average")
