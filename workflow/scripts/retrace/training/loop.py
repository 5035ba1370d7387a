"""The training loop of all families: iterations, checkpoints, losses."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from retrace.errors import ConfigError, StateError
from retrace.planning.training_folders import SNAPSHOTS
from retrace.progress import progress
from retrace.training.average import WeightAverage
from retrace.training.compared import check_compared, marked, total
from retrace.training.control import SAVE, STOP, ControlFile
from retrace.training.divergence import check_loss, check_trained_weights
from retrace.training.parallel import (
    accumulating_gradients,
    data_parallel,
    maximum_over_ranks,
    mean_over_ranks,
)
from retrace.training.prefetch import Prefetcher
from retrace.training.ranks import SINGLE_PROCESS, Rank
from retrace.training.signals import StopSignal, handling_stop_signals
from retrace.training.snapshots import is_shown, save_snapshot
from retrace.training.state import TrainingProgress, load_state, save_state, state_files
from retrace.training.task import Batch, Task
from retrace.training.validation import ValidationCurve

LOSSES_AT_ONCE = {"cpu": 1, "cuda": 20}
"""Iterations between transfers of the loss to the host; on a GPU each one synchronises."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a training runs; none of these settings changes which batches it sees."""

    iterations: int
    checkpoint_every: int
    checkpoint_seconds: float
    snapshot_every: int
    workers: int
    bf16: bool
    compile: bool
    work: Path
    max_seconds: float | None = None
    """Training ends after this time, all runs together."""


@dataclass
class TrainingOutcome:
    """The result of a training; `losses` (iteration - begun, terms) float32."""

    iteration: int
    terms: tuple[str, ...]
    losses: Tensor
    observed: int = 0
    """How many of the last terms are monitored, not minimised."""
    begun: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    done_here: int = 0
    all_seconds: float = 0.0
    """Training time of this run and all runs before it."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """As in TrainingProgress."""

    @property
    def progress(self) -> TrainingProgress:
        """The losses with their iterations, as a saved state keeps them."""
        return TrainingProgress(self.iteration, self.terms, self.losses, validation=self.validation)


@dataclass
class Trainer:
    """Trains a network on a task until `plan.iterations`, from the last saved state.

    With several processes, each runs this loop over its part of every batch; the first one writes.
    """

    task: Task
    module: nn.Module
    optimizer: torch.optim.Optimizer
    plan: TrainingPlan
    device: torch.device
    average: WeightAverage | None = None
    begun: int = 0
    """Iterations of the weights before this training."""
    rank: Rank = SINGLE_PROCESS
    validation: ValidationCurve | None = None
    """Measures the network while it is trained, in the first process."""
    rate: Callable[[int], float] | None = None
    """The learning rate of an iteration (from 1); None: the optimiser has its own."""
    on_save: Callable[[TrainingProgress], None] | None = None
    """Writes further files in the first process, at the start and with each saved state."""
    terms: tuple[str, ...] = ()
    _earlier_s: float = 0.0
    """Seconds of the runs before this one."""
    _since: float | None = None
    _losses: list[Tensor] = field(default_factory=list)
    _unread: list[Tensor] = field(default_factory=list)

    def run(self) -> TrainingOutcome:
        """Trains to the end; StateError if the saved state is beyond `plan.iterations`,
        if the loss or the weights have diverged, or if nothing was compared (`check_compared`).

        After `plan.max_seconds` the state is saved and training ends with the current weights.
        After SIGTERM or SIGINT the state is saved and the process exits with 128 + the signal.
        """
        first = self._resume()
        outcome = TrainingOutcome(first, self.terms, torch.zeros(0, 0), begun=self.begun)
        outcome.observed = self.task.observed
        if first < self.plan.iterations and not self._ends_early(first):
            with handling_stop_signals(StopSignal()) as stop:
                self._train(first, stop, outcome)
        if self.rank.is_first:
            self._check_weights(outcome.iteration)
            self._check_end()
            self._measure_end(outcome.iteration, None)
        outcome.all_seconds = self._earlier_s + outcome.seconds
        outcome.losses = torch.stack(self._losses) if self._losses else torch.zeros(0, 0)
        outcome.terms, outcome.validation = self.terms, self._validation_state
        return outcome

    def _resume(self) -> int:
        states = state_files(self.plan.work)
        if not states:
            self._check_iterations(self.begun, "the published checkpoint", "train without it")
            return self.begun
        done = load_state(states[-1], self.module, self.optimizer, self._averaged)
        again = f"move {self.plan.work} to another folder to start over"
        self._check_iterations(done.iteration, str(states[-1]), again)
        self.begun, self.terms, self._losses = done.begun, done.terms, list(done.losses)
        self._earlier_s = done.seconds
        if self.validation:
            self.validation.resume(done.validation)
        print(f"[train] resumes at iteration {done.iteration} ({states[-1]})", flush=True)
        return done.iteration

    def _check_iterations(self, done: int, where: str, again: str) -> None:
        if done > self.plan.iterations:
            raise StateError(
                f"{where} is already at iteration {done}, beyond the {self.plan.iterations} "
                f"requested; set `iterations` to {done} or higher, or {again}"
            )

    def _train(self, first: int, stop: StopSignal, outcome: TrainingOutcome) -> None:
        plan = self.plan
        numbers = self.rank.samples(first, plan.iterations, self.task.batch_size)
        batches = Prefetcher(self.task, numbers, plan.workers, self.device)
        control = ControlFile(plan.work, self.task.commands, self.task.as_command)
        self._since = begin = saved = time.monotonic()
        self._call_on_save(first)
        with self._log(first) as writer, closing(iter(batches)) as samples:
            for iteration in self._iterations(first):
                outputs, batch = self._step(samples, iteration, writer)
                if self.validation and self.rank.is_first:
                    self.validation.measure_if_due(self._last, iteration, writer)
                late = self.rank.is_first and time.monotonic() - saved >= plan.checkpoint_seconds
                requests = self._handle(control, iteration) if self.rank.is_first else set()
                last = STOP in requests or (self.rank.is_first and self._ends_early(iteration))
                due = self._is_due(iteration) or late or bool(requests) or last
                ending, save, over = maximum_over_ranks([stop.signal, due, last], self.rank)
                if self._is_shown(iteration, first, bool(over)):
                    self._save_snapshot(iteration, outputs, batch)
                del outputs, batch  # they would need memory during the next step
                if ending or save:
                    self._save(iteration, writer)
                    saved = time.monotonic()
                if ending and iteration < plan.iterations:
                    if self.rank.is_first:
                        self.task.interrupted(self._progress(iteration), plan.work)
                    maximum_over_ranks([0], self.rank)  # wait until the state is written
                    print(f"[train] stopped at iteration {iteration}; run again to resume")
                    sys.exit(128 + ending)
                outcome.iteration = iteration
                if over:
                    break
            self._measure_end(outcome.iteration, writer)
        outcome.seconds = time.monotonic() - begin
        outcome.waited_s = batches.waited_s
        outcome.done_here = outcome.iteration - first

    @property
    def _elapsed_s(self) -> float:
        """Training time of all runs so far."""
        return self._earlier_s + (time.monotonic() - self._since if self._since else 0.0)

    def _ends_early(self, iteration: int) -> bool:
        """Whether training ends before its last iteration, which is then printed."""
        if not (self.validation and self.validation.has_stalled):
            return self._is_time_up(iteration)
        if self.rank.is_first:
            patience = self.validation.settings.patience
            print(
                f"[train] ends at iteration {iteration}: the validation loss has not become lower "
                f"in {patience} measurements (`patience`)",
                flush=True,
            )
        return True

    def _measure_end(self, iteration: int, writer: SummaryWriter | None) -> None:
        """Measures the last state too; a longer training does not have this measurement."""
        if self.validation and self.rank.is_first:
            self.validation.measure(self._last, iteration, writer)

    @property
    def _validation_state(self) -> dict[str, Any]:
        return self.validation.state() if self.validation else {}

    def _is_time_up(self, iteration: int) -> bool:
        """Whether the time limit is reached, which is then printed; one iteration always runs."""
        plan = self.plan
        limit = math.inf if plan.max_seconds is None else plan.max_seconds
        if not 0 < iteration < plan.iterations or self._elapsed_s < limit:
            return False
        if self.rank.is_first:
            print(
                f"[train] its {limit:g} s are over at iteration {iteration} of "
                f"{plan.iterations}; the current weights are the result, and a run with more time "
                "resumes here",
                flush=True,
            )
        return True

    def _handle(self, control: ControlFile, iteration: int) -> set[str]:
        """Handles new commands of the task and returns those of the loop: save, stop."""
        requests = set()
        for command in control.commands():
            line = f"{command.word} {command.argument}".strip()
            try:
                if command.word in (SAVE, STOP):
                    requests.add(command.word)
                    reply = "done"
                else:
                    reply = self.task.handle(command, iteration, self.plan.work)
            except ConfigError as error:
                reply = str(error)
            control.reply(f"iteration {iteration}: {line}: {reply}")
        return requests

    def _log(self, first: int) -> AbstractContextManager[SummaryWriter | None]:
        """The TensorBoard writer of the first process; None in the others."""
        if not self.rank.is_first:
            return nullcontext()
        return SummaryWriter(str(self.plan.work / "log"), purge_step=first + 1)

    def _iterations(self, first: int) -> Iterable[int]:
        """The iterations after `first`, with a progress line in the first process."""
        remaining = range(first + 1, self.plan.iterations + 1)
        if not self.rank.is_first:
            return remaining
        return progress(remaining, len(remaining), "train", "iterations", self._last_loss)

    def _last_loss(self) -> str:
        """The last loss that is known, in words."""
        if not self._losses:
            return ""
        return f"loss {float(total(self._losses[-1], self.task.observed)):.4g}"

    def _is_due(self, iteration: int) -> bool:
        plan = self.plan
        return iteration % plan.checkpoint_every == 0 or iteration == plan.iterations

    def _is_shown(self, iteration: int, first: int, over: bool) -> bool:
        """Whether this process writes a snapshot; also of the iteration that ends the run early."""
        plan = self.plan
        is_due = over or is_shown(iteration, first + 1, plan.iterations, plan.snapshot_every)
        return self.rank.is_first and is_due

    @property
    def result(self) -> nn.Module:
        """The trained network in the state that is kept: the last, or the best one."""
        return self.validation.in_best_state(self._last) if self.validation else self._last

    @property
    def _last(self) -> nn.Module:
        """The network with its current weights: the averaged ones where they are kept."""
        return self._averaged or self.module

    @property
    def _averaged(self) -> nn.Module | None:
        return self.average.module if self.average else None

    @cached_property
    def _network(self) -> nn.Module:
        """The module, compiled if the plan asks for it, and data-parallel in several processes."""
        network = self.module
        if self.plan.compile:
            network = cast(nn.Module, torch.compile(network, dynamic=False))
        return data_parallel(network, self.device, self.rank)

    def _step(
        self, samples: Iterator[Batch], iteration: int, writer: SummaryWriter | None
    ) -> tuple[dict[str, Tensor], Batch]:
        """Trains one iteration; returns outputs, by head, and batch of its first sample."""
        if self.task.begins_phase(iteration):
            self.optimizer.state.clear()
        self._set_rate(iteration, writer)
        self.optimizer.zero_grad(set_to_none=True)
        own = self.task.batch_size // self.rank.count
        losses = []
        batches = []
        shown: dict[str, Tensor] = {}
        for left in reversed(range(own)):
            batch = next(samples)
            batches.append(batch)
            with accumulating_gradients(self._network, last=left == 0):
                outputs, values, recorded = self._loss(batch)
                (values.sum() / own).backward()
            losses.append(recorded)
            shown = shown or {head: output.detach() for head, output in outputs.items()}
        if getattr(self.optimizer, "evaluates", False):
            self.optimizer.step(partial(self._reevaluate, batches))
        else:
            self.optimizer.step()
        if self.average:
            self.average.update(self.module, iteration)
        means = torch.stack(losses).nanmean(dim=0)
        if self.rank.is_first:
            self.task.after_step(self.module, iteration, means, self.plan.work)
        self._unread.append(means)
        if len(self._unread) >= LOSSES_AT_ONCE[self.device.type]:
            self._read_losses(writer)
        return shown, batches[0]

    def _set_rate(self, iteration: int, writer: SummaryWriter | None) -> None:
        """Gives the optimiser the learning rate of an iteration, if that has one of its own."""
        if self.rate is None:
            return
        rate = self.rate(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if writer:
            writer.add_scalar("learning_rate", rate, iteration)

    def _reevaluate(self, batches: list[Batch]) -> float:
        """Computes loss and gradients of the iteration's batches with the current weights."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            with torch.enable_grad():
                loss = self._minimised(self._loss(batch)[1]) / len(batches)
            loss.backward()
            total += float(loss.detach())
        return total

    def _minimised(self, values: Tensor) -> Tensor:
        """Sum of the terms (terms,) that are minimised."""
        return values[: len(values) - self.task.observed].sum()

    def _loss(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Outputs for one sample by head, its loss terms (terms,), and these as recorded."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bf16):
            outputs = self.task.predict(self._network, batch)
        losses = self.task.losses(outputs, batch)
        self.terms = tuple(losses)
        values = torch.stack(list(losses.values()))
        return outputs, values, marked(values, self.terms, self.task.uncompared(losses, batch))

    def _save_snapshot(self, iteration: int, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Writes a snapshot of one sample, with the outputs before the iteration's step."""
        if pictures := self.task.pictures(outputs, batch):
            folder = self.plan.work / SNAPSHOTS
            save_snapshot(folder, iteration, pictures, self.task.voxel_size_nm)

    def _read_losses(self, writer: SummaryWriter | None) -> None:
        """Transfers the last losses to the host; StateError if one is NaN or infinite."""
        if not self._unread:
            return
        for values in mean_over_ranks(torch.stack(self._unread).cpu().float(), self.rank):
            self._losses.append(values)
            iteration = self.begun + len(self._losses)
            check_loss(values, self.terms, iteration, self.plan.work)
            if writer:
                loss = float(total(values, self.task.observed))
                writer.add_scalar("loss", loss, iteration)
                for name, value in zip(self.terms, values.tolist(), strict=True):
                    writer.add_scalar(f"loss/{name}", value, iteration)
        self._unread.clear()

    def _save(self, iteration: int, writer: SummaryWriter | None) -> None:
        self._read_losses(writer)
        if not self.rank.is_first:
            return
        self._check_weights(iteration)
        save_state(
            self.plan.work, self.module, self.optimizer, self._progress(iteration), self._averaged
        )
        self._call_on_save(iteration)

    def _check_end(self) -> None:
        """StateError if nothing was compared by the end; the saved state stays."""
        if not self._losses:
            return
        minimised = self.terms[: len(self.terms) - self.task.observed]
        names = [name for name in self.task.data_terms or minimised if name in self.terms]
        losses = torch.stack(self._losses)[:, [self.terms.index(name) for name in names]]
        check_compared(losses, names, self.task.remedy, self.plan.work)

    def _check_weights(self, iteration: int) -> None:
        """StateError if the network, or the average of its weights, has diverged."""
        for module in (self.module, self._averaged):
            if module is not None:
                check_trained_weights(module, iteration, self.plan.work)

    def _progress(self, iteration: int) -> TrainingProgress:
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0, 0)
        return TrainingProgress(
            iteration, self.terms, losses, self._elapsed_s, self._validation_state
        )

    def _call_on_save(self, iteration: int) -> None:
        if self.on_save and self.rank.is_first:
            self.on_save(self._progress(iteration))
