"""Trains a network until an iteration; killed at any moment and run again, it goes on.

With `gpus` above 1 in the settings as many processes share every batch, a GPU each.

The state lives in WORK/DATASET_NETWORK_DIGEST, the digest naming all settings that change the
result. Snapshots (zarr) and TensorBoard scalars lie there too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from retrace.checkpoints.elektronn import SUFFIX, load_parameters, read_param
from retrace.checkpoints.native import load_layers, load_model, read_metadata, save_model
from retrace.checkpoints.published import load_moments, load_published, read_published
from retrace.checkpoints.znn import read_h5, seed_from
from retrace.device import check_devices, choose_own_device, uses_bf16, uses_compile
from retrace.errors import ConfigError, run
from retrace.geometry import triple
from retrace.manifest import atomic_write, digest, gpu_name, input_digest, peak_memory_mb
from retrace.named import named_paths
from retrace.networks import ElektronnNetwork, Network, UNet, ZnnNetwork, build_network
from retrace.networks.tuning import set_modes
from retrace.sampling import open_sampler
from retrace.stacks import H5_SUFFIXES
from retrace.training.average import WeightAverage
from retrace.training.cube_batches import CubeBatches, open_cube_batches
from retrace.training.elektronn_family import ElektronnTask, read_history
from retrace.training.elektronn_optimizers import elektronn_optimizer
from retrace.training.elektronn_pictures import curve_pictures
from retrace.training.elektronn_schedule import make_schedule
from retrace.training.example_batches import ExampleBatches, open_example_batches
from retrace.training.loop import Outcome, Plan, Trainer, make_optimizer
from retrace.training.lsd_family import make_task
from retrace.training.parallel import run_in_processes
from retrace.training.ranks import ALONE, Rank, check_division
from retrace.training.state import Progress, state_files
from retrace.training.task import Task
from retrace.training.znn_family import make_znn_task
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.training.znn_saving import NetFiles, learning_curve
from retrace.volumes import noting_opened, origin_of

CHECKPOINT_SECONDS = 300.0
HISTORY_ROWS = 2000
EMA_BEGIN, EMA = 0.65, 0.995
"""First value and factor of the smoothed loss in ELEKTRONN's history (trainer.py)."""
LAST = 100
"""Iterations whose mean loss is written beside the weights."""

Net = TypeVar("Net", UNet, ZnnNetwork, ElektronnNetwork)

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


@dataclass(frozen=True)
class Models:
    """Files of weights: to begin from, to read descriptors from, to go on from as published."""

    init: Path | None = None
    context: Path | None = None
    published: Path | None = None


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


def load_context(
    settings: Mapping[str, Any], model: Path | None, device: torch.device
) -> UNet | None:
    """The frozen network whose descriptors are read; None where none is asked for."""
    network = settings.get("autocontext")
    if not network:
        return None
    if model is None:
        raise ConfigError(
            f"network {settings['network']['name']!r} reads what {network['name']!r} predicts; "
            "give its model with --context"
        )
    module = build_network(network)
    load_model(model, module, network)
    return on_device(module.requires_grad_(False).eval(), device)


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


def on_device(module: Net, device: torch.device) -> Net:
    """Channels last on a GPU; on CPUs the weight gradient is half as fast that way (measured)."""
    if device.type != "cuda":
        return module.to(device)
    return module.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


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


Made = tuple[Task, torch.optim.Optimizer, Network, int]
"""What a family brings to a training, and how many iterations its weights have seen."""


def make_lsd(
    settings: Mapping[str, Any],
    masks: Mapping[str, Path],
    models: Models,
    is_new: bool,
    *,
    module: UNet,
    device: torch.device,
    processes: int,
) -> Made:
    """A training of the LSD family."""
    network, dataset = settings["network"], settings["dataset"]
    if models.init and is_new:
        load_model(models.init, module, network)
    module = on_device(module, device)
    sampler = open_sampler(
        dataset,
        masks,
        padding_nm=network["label_padding_nm"],
        min_masked=network["min_masked"],
        field_of_view=module.valid_shape(),
        processes=processes,
    )
    size = triple(dataset["voxel_size_nm"])
    first = load_context(settings, models.context, device)
    task = make_task(network, module, sampler, size, settings["seed"], device, first)
    optimizer = make_optimizer(module, network["optimizer"])
    begun = 0
    if models.published and is_new:
        begun = take_over(models.published, module, optimizer, network["name"])
    return task, optimizer, module, begun


def make_znn(
    settings: Mapping[str, Any],
    masks: Mapping[str, Path],
    models: Models,
    is_new: bool,
    *,
    module: ZnnNetwork,
    device: torch.device,
    processes: int,
) -> Made:
    """A training of ZNN's networks; its `init` may be a model or an h5 of ZNN (seeding)."""
    network = settings["network"]
    module = on_device(module.to(getattr(torch, network["dtype"])), device)
    optimizer = ZnnOptimizer(module, network)
    optimizer.register_step_post_hook(lambda *_: module.tie())
    set_modes(module, network, device, training=True)
    if models.init and is_new:
        seed(models.init, module, optimizer, network)
    task = make_znn_task(settings, module, masks, device, processes)
    return task, optimizer, module, 0


def make_elektronn(
    settings: Mapping[str, Any],
    masks: Mapping[str, Path],
    models: Models,
    work: Path,
    *,
    module: ElektronnNetwork,
    device: torch.device,
) -> Made:
    """A training of ELEKTRONN's networks; `init` may be another one of theirs (pre-training)."""
    network, dataset = settings["network"], settings["dataset"]
    states = state_files(work)
    done = int(states[-1].stem.removeprefix("state_")) if states else 0
    if models.init and not states:
        begin_from(models.init, module, network)
    module = on_device(module, device)
    schedule = make_schedule(network)
    schedule.resume(work, done)
    name = network["optimizer"]
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = elektronn_optimizer(
        name, trained, network[f"{name}_params"], weight_decay=float(network["weight_decay"])
    )
    data: ExampleBatches | CubeBatches
    if "examples" in dataset:
        data = open_example_batches(network, dataset, settings["seed"], device)
    else:
        data = open_cube_batches(settings, module, masks, device)
    size = triple(dataset.get("voxel_size_nm", (1, 1, 1)))
    task = ElektronnTask(network, module, data, schedule, size, settings["seed"], work)
    task.rows = read_history(work, done)
    optimizer.follow(task.rates)
    if not states:
        task.draw_batch(0)
    return task, optimizer, module, 0


def begin_from(path: Path, module: ElektronnNetwork, network: Mapping[str, Any]) -> None:
    """A whole model, with `pretrained` of the network the first layers of another one, or as many
    layers as a parameter file of ELEKTRONN has."""
    told = network["pretrained"]
    if path.suffix == SUFFIX:
        for line in load_parameters(read_param(path), module):
            print(f"[train] {line}", flush=True)
        return
    if not told:
        load_model(path, module, network)
        return
    for line in load_layers(path, module, told["layers"]):
        print(f"[train] {line}", flush=True)


def seed(
    path: Path, module: ZnnNetwork, optimizer: ZnnOptimizer, network: Mapping[str, Any]
) -> None:
    """Begins from a trained network: layer by layer from an h5, or a whole model."""
    if path.suffix not in H5_SUFFIXES:
        load_model(path, module, network)
        return
    for line in seed_from(read_h5(path), module, optimizer.velocity):
        print(f"[train] {line}", flush=True)


def set_threads(threads: int | None, rank: Rank) -> None:
    """As many as are given, or as torch would take, divided among the processes."""
    if threads or rank.count > 1:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // rank.count))


def take_over(folder: Path, module: UNet, optimizer: torch.optim.Optimizer, network: str) -> int:
    """Weights, Adam's moments and iteration of a published checkpoint; returns the iteration."""
    found = read_published(folder)
    load_published(found, module, network)
    moments = load_moments(found, module, optimizer)
    print(
        f"[train] goes on from {found.source.name}, "
        f"{'with' if moments else 'without'} the moments of its optimiser",
        flush=True,
    )
    return found.iteration


def history(settings: Mapping[str, Any], outcome: Outcome, seconds: float) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal stretches of iterations."""
    count = outcome.iteration - outcome.begun
    stretch = max(1, -(-count // HISTORY_ROWS))
    rows = []
    for begin in range(0, count, stretch):
        part = outcome.losses[begin : begin + stretch].double().mean(dim=0)
        end = min(begin + stretch, count)
        row: dict[str, Any] = {"iteration": outcome.begun + end}
        row["loss"] = float(part[: len(part) - outcome.observed].sum())
        rows.append(row | dict(zip(outcome.terms, part.tolist(), strict=True)))
    return {
        "dataset": settings["dataset"]["name"],
        "network": settings["network"]["name"],
        "iterations": outcome.iteration,
        "batch_size": settings["network"].get("batch_size", 1),
        "processes": settings.get("gpus", 1),
        "seed": settings["seed"],
        "terms": list(outcome.terms),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
        "gpu": gpu_name(),
        "training_seconds": round(outcome.all_seconds, 3),
        "iterations_this_run": outcome.done_here,
        "iterations_per_second": round(outcome.done_here / max(outcome.seconds, 1e-9), 4),
        "share_waiting_for_data": round(outcome.waited_s / max(outcome.seconds, 1e-9), 4),
        "history": rows,
    }


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


def last_loss(outcome: Outcome) -> float | None:
    """Mean loss of the last iterations, None where published weights were left as they are."""
    if not len(outcome.losses):
        return None
    minimised = outcome.losses.shape[1] - outcome.observed
    return round(float(outcome.losses[-LAST:, :minimised].double().sum(dim=1).mean()), 6)


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
