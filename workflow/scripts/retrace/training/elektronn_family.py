"""Training ELEKTRONN's networks: losses, monitoring, and what changes on the way.

Source: ELEKTRONN, elektronn/training/trainer.py. Its console's jobs are declared actions and orders
to a running training here; differences are in docs/reference/elektronn.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from retrace.checkpoints.elektronn import SUFFIX, load_parameters, read_param
from retrace.checkpoints.safetensors import load_layers, load_model
from retrace.errors import ConfigError
from retrace.files import atomic_write
from retrace.geometry import Triple, triple
from retrace.losses.elektronn import (
    binary_overlap,
    error_share,
    nll,
    nll_multiple_binary,
    nll_weak,
    squared_error,
)
from retrace.networks.elektronn import ElektronnNetwork
from retrace.training.control import Order, number, switch
from retrace.training.cube_batches import CubeBatches, open_cube_batches
from retrace.training.elektronn_optimizers import elektronn_optimizer
from retrace.training.elektronn_pictures import batch_picture, curve_pictures
from retrace.training.elektronn_schedule import LEAD, Schedule, has_stalled, make_schedule
from retrace.training.example_batches import ExampleBatches, open_example_batches
from retrace.training.sampler import network_seed
from retrace.training.state import state_files
from retrace.training.task import Batch, Made, Models, Picture, on_device

HISTORY = "history.json"
"""What was measured so far, in the folder of a training."""
PLOT_SECONDS = 30.0
"""Least time between two drawings of the curves."""
ORDERS = {
    "lr": "learning rate, e.g. lr 0.002",
    "momentum": "e.g. momentum 0.9",
    "warp": "warping, on or off",
    "history": "iterations between two measurements, e.g. history 500",
    "debug": "draw the batch at hand, debug_batch.png",
}


class Data(Protocol):
    """Where a training's batches come from."""

    def batch(self, number: int, *, warp: bool | float) -> Batch:
        """`input` (N, C, ...) and `target` (N, ...) of an iteration, by its number alone."""
        ...

    def monitor(self, split: str, count: int) -> Iterable[Batch]:
        """Batches to measure train or validation with: always the same, never warped."""
        ...


@dataclass
class ElektronnTask:
    """Batches, losses and curves of the networks of the family elektronn.

    One batch of the loop holds all examples of an iteration.
    """

    network: Mapping[str, Any]
    module: ElektronnNetwork
    data: Data
    schedule: Schedule
    voxel_size_nm: Triple
    seed: int
    work: Path
    history_freq: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    _last: tuple[Batch, float] | None = None
    _began: float = field(default_factory=time.monotonic)
    _drawn: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.history_freq = self.network["history_freq"]

    @property
    def batch_size(self) -> int:
        """1: examples are not dealt out one by one."""
        return 1

    @property
    def observed(self) -> int:
        """The error of the batch is watched; a squared error is all there is."""
        return 0 if self.reconstructs else 1

    @property
    def reconstructs(self) -> bool:
        """Whether values are learned, by their squared error."""
        return self.network["target"] == "regression" or self.network["autoencoder"] is not None

    @property
    def is_random(self) -> bool:
        """Whether the network itself throws dice while it trains."""
        autoencoder = self.network["autoencoder"] or {}
        return any(self.network["dropout_rates"]) or bool(autoencoder.get("input_noise"))

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """All examples of an iteration, on the device."""
        found = self.data.batch(number, warp=self.schedule.value("warp_on", number))
        return {**found, "number": torch.tensor(number)}

    def begins_phase(self, iteration: int) -> bool:
        """Never: one loss from the first iteration to the last."""
        return False

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What the last layer gives; what is dropped depends on the seed and the number alone."""
        if self.is_random and module.training:
            torch.manual_seed(network_seed(self.seed, int(batch["number"])))
        outputs: dict[str, Tensor] = module(batch["input"])
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`mse`, or `nll` and the watched `error`."""
        (output,) = (y.float() for y in outputs.values())
        terms = self._terms(output, batch)
        self._last = (batch, next(iter(terms.values())).detach())  # type: ignore[assignment]
        return terms

    def _terms(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        target = batch["target"]
        if self.reconstructs:
            return {"mse": squared_error(output, target.reshape(output.shape))}
        weights = self.network["class_weights"]
        kind = self.network["target"]
        if kind == "nll_multiple_binary":
            loss = nll_multiple_binary(output, target, class_weights=weights)
            return {"nll": loss, "error": (1 - binary_overlap(output, target)).detach()}
        if kind == "nll_weak":
            loss = nll_weak(output, target, class_weights=weights)
        else:
            loss = nll(
                output,
                target,
                class_weights=weights,
                example_weights=batch.get("example_weights"),
                labelled=batch.get("labelled"),
                absent=batch.get("absent"),
                propagate_above=self.network["label_prop_thresh"],
            )
        error = error_share(output.detach(), target)
        return {"nll": loss, "error": error.nan_to_num(0.0)}

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Input, target and prediction of the first example of a volume; none of images."""
        draw = getattr(self.data, "pictures", None)
        if draw is None:
            return {}
        (output,) = (y.detach() for y in outputs.values())
        return cast(dict[str, Picture], draw(self.module.as_probabilities(output), batch))

    @torch.no_grad()
    def after_step(self, module: nn.Module, iteration: int, work: Path) -> None:
        """Every `history_freq` iterations a measurement; declared actions; previews."""
        if iteration % self.network["snapshot_every"] == 0:
            self._preview(module, iteration)
        if iteration % self.history_freq:
            return
        self.rows = [row for row in self.rows if row["iteration"] < iteration]
        self.rows.append(self._measured(module, iteration))
        atomic_write(self.work / HISTORY, json.dumps(self.rows) + "\n")
        self._act(iteration)
        self.draw_curves()

    def _preview(self, module: nn.Module, iteration: int) -> None:
        show = getattr(self.data, "preview", None)
        if show is not None:
            module.eval()
            show(module, self.work / "preview", iteration)
            module.train()

    def _measured(self, module: nn.Module, iteration: int) -> dict[str, Any]:
        """A row of the history: losses and errors of both splits, and how the last step did."""
        assert self._last is not None
        batch, loss = self._last
        rates = self.rates(iteration - 1)
        row: dict[str, Any] = {"iteration": iteration, "loss": float(loss), **rates}
        row["warp"] = float(self.schedule.value("warp_on", iteration - 1))
        module.eval()
        for split in ("train", "validation"):
            row |= {f"{split}_{k}": v for k, v in self._mean(split).items()}
        again = self._terms(self.module.raw(batch["input"]).float(), batch)
        row["loss_change"] = float(next(iter(again.values()))) - float(loss)
        module.train()
        earlier = self.rows[-1]["seconds"] if self.rows else 0.0
        row["seconds"] = round(earlier + time.monotonic() - self._began, 3)
        self._began = time.monotonic()
        return row

    def _mean(self, split: str) -> dict[str, float]:
        """Loss and error of a split, by the number of examples."""
        sums: dict[str, float] = {}
        count = 0
        for batch in self.data.monitor(split, self.network["monitor_batch_size"]):
            size = len(batch["input"])
            count += size
            terms = self._terms(self.module.raw(batch["input"]).float(), batch)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + size * float(value)
        if not count:
            return {}
        return {"loss" if n in ("nll", "mse") else n: value / count for n, value in sums.items()}

    def _act(self, iteration: int) -> None:
        """Declared actions that wait for a plateau, each once, one after the other."""
        for place, action in enumerate(self.network["actions"]):
            if "on_plateau" not in action or self.schedule.fired(f"plateau {place}"):
                continue
            told = action["on_plateau"]
            since = max(
                [c["decided"] for c in self.schedule.changes if c["by"].startswith("plateau")],
                default=0,
            )
            rows = [row for row in self.rows if row["iteration"] > since]
            values = [row[told["of"]] for row in rows if told["of"] in row]
            if has_stalled(values, told["patience"], told.get("least", 0.0)):
                name = f"plateau {place}"
                self.schedule.add(iteration + LEAD, action["set"], name, iteration)
                print(f"[train] {told['of']} no longer falls: {action['set']}", flush=True)
            return

    def rates(self, iteration: int) -> dict[str, float]:
        """Learning rate and momentum of an iteration, counted from 0."""
        momentum = float(self.schedule.value("momentum", iteration))
        return {"lr": self.schedule.lr(iteration), "momentum": momentum}

    def draw_curves(self) -> None:
        """The curves so far, now and then."""
        if time.monotonic() - self._drawn >= PLOT_SECONDS:
            curve_pictures(self.rows, self.work)
            self._drawn = time.monotonic()

    def draw_batch(self, iteration: int) -> None:
        """What an iteration learns from: input, target, and both over each other."""
        batch_picture(self.batch(iteration), self.module, self.work / "debug_batch.png")

    @property
    def orders(self) -> Mapping[str, str]:
        """Those of ELEKTRONN's console."""
        return ORDERS

    def obey(self, order: Order, iteration: int, work: Path) -> str:
        """Follows an order; a change of the training is kept and made some iterations later."""
        if order.word == "debug":
            self.draw_batch(iteration)
            return str(self.work / "debug_batch.png")
        if order.word == "history":
            every = int(number(order.rest, "history"))
            if every < 1:
                raise ConfigError(f"history {order.rest!r}: at least 1, for example: history 500")
            self.history_freq = every
            return f"every {every} iterations"
        if order.word == "warp":
            values: dict[str, Any] = {"warp_on": self._warp(switch(order.rest, "warp"))}
        else:
            value = number(order.rest, order.word)
            if value < 0:
                raise ConfigError(f"{order.word} {order.rest!r} is below 0")
            values = {order.word: value}
        self.schedule.add(iteration + LEAD, values, "order", iteration)
        return f"from iteration {iteration + LEAD} on"

    def _warp(self, on: bool) -> bool | float:
        """On is as much as the network says, or always where it says none."""
        told = self.network["warp_on"]
        return (told or True) if on else False


def read_history(work: Path, iteration: int) -> list[dict[str, Any]]:
    """The rows of a training up to an iteration; what was measured after it comes again."""
    path = work / HISTORY
    rows = json.loads(path.read_text()) if path.is_file() else []
    return [row for row in rows if row["iteration"] <= iteration]


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
