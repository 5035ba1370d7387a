"""Training of ELEKTRONN's networks: losses, monitoring, and changes during the training.

Source: ELEKTRONN, elektronn/training/trainer.py. Its interactive console is replaced by declared
actions and commands to a running training; differences are listed in docs/reference/elektronn.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from retrace.checkpoints.elektronn import SUFFIX, load_parameters, read_param
from retrace.checkpoints.safetensors import load_layers, load_model
from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.config.families import ELEKTRONN
from retrace.errors import ConfigError
from retrace.geometry import NmTriple
from retrace.networks.elektronn import ElektronnNetwork
from retrace.planning.train_settings import TrainingExamples
from retrace.training.compared import marked, number
from retrace.training.control import Command, number_argument, switch_argument
from retrace.training.cube_batches import CubeBatches, open_cube_batches
from retrace.training.elektronn_console import as_command
from retrace.training.elektronn_curves import (
    curve_pictures,
    loss_curve,
    smoothed_losses,
    status_line,
)
from retrace.training.elektronn_history import read_history, write_history
from retrace.training.elektronn_optimizers import elektronn_optimizer
from retrace.training.elektronn_schedule import (
    BY_COMMAND,
    LEAD,
    RateChange,
    RateSchedule,
    RateValues,
    declared_schedule,
    has_stalled,
)
from retrace.training.elektronn_validation import elektronn_validation
from retrace.training.example_batches import ExampleBatches, open_example_batches
from retrace.training.random_streams import seed_network
from retrace.training.state import TrainingProgress, state_files
from retrace.training.task import (
    Batch,
    Picture,
    PlainTask,
    TrainingInputs,
    TrainingSetup,
    on_device,
)
from retrace.training.validation_patches import identity_of

PLOT_SECONDS = 30.0
"""Shortest time between two drawings of the curves."""
COMMANDS = {
    "lr": "learning rate, e.g. lr 0.002",
    "momentum": "e.g. momentum 0.9",
    "warp": "warping, on or off",
    "history": "iterations between two measurements, e.g. history 500",
    "debug": "draw the current batch, debug_batch.png",
}
LOSSES = ELEKTRONN.load_all("losses")
"""Functions (output, batch, network) -> terms, by the network's `target`."""
SQUARED_ERROR, BINARY = "regression", "nll_multiple_binary"
"""The losses of networks that learn values, and several binary labels."""


class BatchSource(Protocol):
    """Where the batches of a training come from."""

    def batch(self, number: int, *, warp: bool | float) -> Batch:
        """`input` (N, C, ...) and `target` (N, ...) of iteration `number`, always the same."""
        ...

    def monitor(self, split: str, count: int) -> Iterable[Batch]:
        """Batches of the split train or validation to measure on: always the same, not warped."""
        ...

    def draw(self, number: int, *, warp: bool | float, path: Path) -> None:
        """Draws the batch of iteration `number`, to check that labels belong to their images."""
        ...


@dataclass
class ElektronnTask(PlainTask):
    """Batches, losses and curves of the networks of the family elektronn.

    A batch of the loop contains all examples of an iteration.
    """

    network: ElektronnNetworkSettings
    module: ElektronnNetwork
    data: BatchSource
    schedule: RateSchedule
    voxel_size_nm: NmTriple
    seed: int
    work: Path
    measured_on: str = ""
    """Identity of the validation data."""
    history_freq: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The measurements so far, except one at the end, which a longer training does not have."""
    update_losses: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Loss (n,) of each iteration up to the last saved state."""
    _new_losses: list[Tensor] = field(default_factory=list)
    _batch: Batch | None = None
    _began: float = field(default_factory=time.monotonic)
    _drawn: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.history_freq = self.network.history_freq

    @property
    def batch_size(self) -> int:
        """1: all examples of an iteration are one sample of the loop."""
        return 1

    @property
    def observed(self) -> int:
        """1, the batch's error, is monitored with class labels; 0 with a squared error."""
        return 0 if self.reconstructs else 1

    @property
    def reconstructs(self) -> bool:
        """Whether the network learns values, by their squared error."""
        return self.network.target == SQUARED_ERROR or self.network.autoencoder is not None

    @property
    def is_random(self) -> bool:
        """Whether the network itself is random while it trains."""
        autoencoder = self.network.autoencoder
        has_noise = autoencoder is not None and autoencoder.input_noise > 0
        return any(self.network.dropout_rates) or has_noise

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """All examples of an iteration, on the device."""
        examples = self.data.batch(number, warp=self.schedule.value("warp_on", number))
        return {**examples, "number": torch.tensor(number)}

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The last layer's output, by head; dropout depends on the seed and the number alone."""
        if self.is_random and module.training:
            seed_network(self.seed, batch)
        outputs: dict[str, Tensor] = module(batch["input"])
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`mse`, or `nll` and the monitored `error`."""
        (output,) = (y.float() for y in outputs.values())
        self._batch = batch
        return self._terms(output, batch)

    def _recorded(self, terms: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The terms (terms,) as they are recorded: NaN where nothing was compared."""
        return marked(torch.stack(list(terms.values())), [*terms], self.uncompared(terms, batch))

    def _terms(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        kind = SQUARED_ERROR if self.reconstructs else self.network.target
        terms: dict[str, Tensor] = LOSSES[kind](output, batch, self.network)
        return terms

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """All terms, if a batch of class numbers has neither a label nor an absent class."""
        if self.reconstructs or self.network.target == BINARY:
            return {}
        # not 0 where unlabelled voxels take a class that the network is sure of
        compared = (batch["target"] >= 0).any() | (terms["nll"] != 0)
        if "absent" in batch:
            compared = compared | (batch["absent"] > 0).any()
        return dict.fromkeys(terms, ~compared)

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Input, target and prediction of a batch's first example from volumes; none for images."""
        draw = getattr(self.data, "pictures", None)
        if draw is None:
            return {}
        (output,) = (y.detach() for y in outputs.values())
        return cast(dict[str, Picture], draw(self.module.as_probabilities(output), batch))

    def validation_pictures(self, module: ElektronnNetwork) -> Mapping[str, Picture]:
        """The pictures of the first validation example from volumes."""
        for batch in self.data.monitor("validation", 1):
            return self.pictures({"output": module.raw(batch["input"])}, batch)
        return {}

    @torch.no_grad()
    def after_step(self, module: nn.Module, iteration: int, losses: Tensor, work: Path) -> None:
        """Measures after the first and every `history_freq` iterations, runs due actions,
        draws previews."""
        self._new_losses.append(losses[0])
        if iteration == 1 or iteration % self.network.snapshot_every == 0:
            self._preview(module, iteration)
        if iteration > 1 and iteration % self.history_freq:
            return
        self.rows = [row for row in self.rows if row["iteration"] < iteration]
        assert self._batch is not None
        self.rows.append(self._measure(module, iteration, self._batch, losses[0]))
        write_history(self.work, self.rows, self.measured_on)
        self._run_plateau_action(iteration)
        self.draw_curves()

    def _preview(self, module: nn.Module, iteration: int) -> None:
        show = getattr(self.data, "preview", None)
        if show is not None:
            module.eval()
            show(module, self.work / "preview", iteration)
            module.train()

    def _measure(
        self, module: nn.Module, iteration: int, batch: Batch, loss: Tensor
    ) -> dict[str, Any]:
        """A row of the history: losses and errors of both splits, and the last step's effect.

        `batch`, `loss`: of the iteration, before its update.
        """
        rates = self.rates(iteration - 1)
        row: dict[str, Any] = {"iteration": iteration, "loss": number(loss), **rates}
        row["warp"] = float(self.schedule.value("warp_on", iteration - 1))
        module.eval()
        for split in ("train", "validation"):
            row |= {f"{split}_{k}": v for k, v in self.split_means(split, self.module).items()}
        after_step = self._terms(self.module.raw(batch["input"]).float(), batch)
        row["loss_change"] = number(self._recorded(after_step, batch)[0] - loss)
        module.train()
        earlier = self.rows[-1]["seconds"] if self.rows else 0.0
        row["seconds"] = round(earlier + time.monotonic() - self._began, 3)
        self._began = time.monotonic()
        print(f"[train] {status_line(row)}", flush=True)
        return row

    def split_means(self, split: str, module: ElektronnNetwork) -> dict[str, float]:
        """Mean loss and error over the examples of a split; none without labels."""
        sums: dict[str, float] = {}
        count = 0
        for batch in self.data.monitor(split, self.network.monitor_batch_size):
            terms = self._terms(module.raw(batch["input"]).float(), batch)
            values = self._recorded(terms, batch)
            if values.isnan().any():
                continue
            size = len(batch["input"])
            count += size
            for name, value in zip(terms, values.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + size * value
        if not count:
            return {}
        return {"loss" if n in ("nll", "mse") else n: value / count for n, value in sums.items()}

    def _run_plateau_action(self, iteration: int) -> None:
        """Runs the next declared action that waits for a plateau, once it is reached.

        The measurement after the first iteration, before anything was learned, does not count.
        """
        for place, action in enumerate(self.network.actions):
            plateau = action.on_plateau
            if plateau is None or self.schedule.has_fired(f"plateau {place}"):
                continue
            since = max(
                [c.decided for c in self.schedule.changes if c.by.startswith("plateau")],
                default=1,
            )
            rows = [row for row in self.rows if row["iteration"] > since]
            measured = [row[plateau.of] for row in rows if row.get(plateau.of) is not None]
            if has_stalled(measured, plateau.patience, plateau.least):
                values = RateValues.of(action.set)
                self._change(values, f"plateau {place}", iteration)
                print(f"[train] {plateau.of} no longer falls: {action.set.plain()}", flush=True)
            return

    def rates(self, iteration: int) -> dict[str, float]:
        """Learning rate and momentum of an iteration, counted from 0."""
        momentum = float(self.schedule.value("momentum", iteration))
        return {"lr": self.schedule.lr(iteration), "momentum": momentum}

    def draw_curves(self) -> None:
        """Draws the curves, at most every 30 s."""
        if time.monotonic() - self._drawn >= PLOT_SECONDS:
            new = torch.stack(self._new_losses).cpu()
            self._draw(self.rows, torch.cat([self.update_losses, new]))
            self._drawn = time.monotonic()

    def _draw(self, rows: list[dict[str, Any]], losses: Tensor) -> None:
        """Draws the curves from measurements and the loss (n,) of each iteration."""
        curve_pictures(rows, loss_curve(losses), self.work)

    def draw_batch(self, iteration: int) -> None:
        """Draws the batch of an iteration: input, target and their overlay."""
        warp = self.schedule.value("warp_on", iteration)
        self.data.draw(iteration, warp=warp, path=self.work / "debug_batch.png")

    def remember(self, progress: TrainingProgress) -> None:
        """Takes over the losses of a saved state, for the curves."""
        self.update_losses, self._new_losses = first_terms(progress), []

    def interrupted(self, progress: TrainingProgress, work: Path) -> None:
        """Draws the curves of an interrupted training up to its last iteration."""
        self._draw(self.rows, first_terms(progress))

    @property
    def commands(self) -> Mapping[str, str]:
        """The commands of ELEKTRONN's console."""
        return COMMANDS

    def as_command(self, line: str) -> str:
        """A line with ELEKTRONN's words replaced by the commands here."""
        return as_command(line)

    def handle(self, command: Command, iteration: int, work: Path) -> str:
        """Carries out a command; changes of the training take effect 32 iterations later."""
        word, argument = command.word, command.argument
        if word == "debug":
            self.draw_batch(iteration)
            return str(self.work / "debug_batch.png")
        if word == "history":
            every = int(number_argument(argument, "history"))
            if every < 1:
                raise ConfigError(f"history {argument!r}: at least 1, for example: history 500")
            self.history_freq = every
            return f"every {every} iterations"
        if word == "warp":
            values = RateValues(warp_on=self._warp_fraction(switch_argument(argument, word)))
        else:
            value = number_argument(argument, word)
            if value < 0:
                raise ConfigError(f"{word} {argument!r} is below 0")
            values = RateValues(**{word: value})
        self._change(values, BY_COMMAND, iteration)
        return f"from iteration {iteration + LEAD} on"

    def _change(self, values: RateValues, by: str, iteration: int) -> None:
        """Changes values as soon as no batch is prefetched with the earlier ones."""
        self.schedule.add(RateChange(iteration + LEAD, values, by, iteration))

    def _warp_fraction(self, on: bool) -> bool | float:
        """The fraction of examples to warp: the network's own, or all if that is none."""
        configured = self.network.warp_on
        return (configured or True) if on else False

    def history(self, progress: TrainingProgress, work: Path) -> dict[str, Any]:
        """ELEKTRONN's history: the measurements, and the loss smoothed over all iterations."""
        losses = first_terms(progress)
        rows = [row for row in self.rows if row["iteration"] <= progress.iteration]
        if progress.iteration and (not rows or rows[-1]["iteration"] < progress.iteration):
            rows.append(self._measure_end(progress.iteration, losses[-1]))
        smooth = smoothed_losses(list(enumerate(losses.tolist(), start=1)))
        rows = [{**row, "loss_ema": smooth[row["iteration"] - 1]} for row in rows]
        self._draw(rows, losses)
        return {"learning_curve": rows}

    @torch.no_grad()
    def _measure_end(self, iteration: int, loss: Tensor) -> dict[str, Any]:
        """The row of the last iteration, which belongs to no multiple of `history_freq`."""
        if iteration % self.network.snapshot_every:
            self._preview(self.module, iteration)
        return self._measure(self.module, iteration, self.batch(iteration - 1), loss)

    @property
    def metadata(self) -> dict[str, Any]:
        """`input_mean`, the mean grey value that is subtracted from images; none for volumes."""
        return {"input_mean": self.data.mean} if isinstance(self.data, ExampleBatches) else {}


def first_terms(progress: TrainingProgress) -> Tensor:
    """The minimised loss (n,) of each iteration."""
    return progress.losses[:, 0] if len(progress.losses) else torch.zeros(0)


def set_up_elektronn(inputs: TrainingInputs, module: ElektronnNetwork) -> TrainingSetup:
    """Prepares a training of ELEKTRONN's networks; `init` may be another network (pre-training)."""
    settings, work, device = inputs.settings, inputs.work, inputs.device
    network, dataset = settings.network, settings.dataset
    assert isinstance(network, ElektronnNetworkSettings)
    states = state_files(work)
    done = int(states[-1].stem.removeprefix("state_")) if states else 0
    if inputs.weights.init and not states:
        load_initial_elektronn(inputs.weights.init, module, network)
    module = on_device(module, device)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = elektronn_optimizer(
        trained, network.optimizer_settings, weight_decay=float(network.weight_decay)
    )
    schedule = declared_schedule(
        lr=optimizer.group["lr"],
        momentum=optimizer.group["momentum"],
        warp_on=network.warp_on,
        lr_decay=network.LR_decay,
        lr_schedule=network.LR_schedule or (),
        cosine=network.LR_cosine,
        actions=network.actions,
    )
    schedule.resume(work, done)
    data: ExampleBatches | CubeBatches
    if isinstance(dataset, TrainingExamples):
        data = open_example_batches(network, dataset, settings.seed, device)
        size: NmTriple = (1, 1, 1)
    else:
        data = open_cube_batches(network, dataset, settings.seed, module, inputs.masks, device)
        size = dataset.voxel_size_nm
    measured_on = identity_of(inputs)
    task = ElektronnTask(network, module, data, schedule, size, settings.seed, work, measured_on)
    task.rows = read_history(work, done, measured_on)
    optimizer.follow(task.rates)
    if not states:
        task.draw_batch(0)
    every, has_data = settings.validation.every, data.validation is not None
    measured = elektronn_validation(task, every, has_data=has_data)
    return TrainingSetup(
        task, optimizer, module, 0, network.average, on_save=task.remember, validation=measured
    )


def load_initial_elektronn(
    path: Path, module: ElektronnNetwork, network: ElektronnNetworkSettings
) -> None:
    """Loads initial weights from a model or a parameter file of ELEKTRONN.

    With `pretrained`, only the named first layers of another network's model are loaded; from a
    parameter file, as many layers as it has.
    """
    if path.suffix == SUFFIX:
        for line in load_parameters(read_param(path), module):
            print(f"[train] {line}", flush=True)
        return
    pretrained = network.pretrained
    if not pretrained:
        load_model(path, module, network)
        return
    for line in load_layers(path, module, pretrained.layers):
        print(f"[train] {line}", flush=True)
