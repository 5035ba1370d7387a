"""The training loop: iterations, checkpoints, history. Knows nothing about what is trained."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from retrace.errors import ConfigError, StateError
from retrace.progress import progress
from retrace.training.average import WeightAverage
from retrace.training.control import SAVE, STOP, Control
from retrace.training.parallel import adding_up, highest, mean, shared
from retrace.training.prefetch import Prefetcher
from retrace.training.ranks import ALONE, Rank
from retrace.training.snapshots import save_snapshot
from retrace.training.state import Progress, load_state, save_state, state_files
from retrace.training.task import Batch, Task

LOSSES_AT_ONCE = {"cpu": 1, "cuda": 20}
"""Iterations between readings of the loss; on a GPU each reading waits for it."""


@dataclass(frozen=True)
class Plan:
    """How a training runs; nothing here changes which batches it sees."""

    iterations: int
    checkpoint_every: int
    checkpoint_seconds: float
    snapshot_every: int
    workers: int
    bf16: bool
    compile: bool
    work: Path
    max_seconds: float | None = None
    """Training ends where it is after this time, all runs together."""


@dataclass
class Outcome:
    """What a finished training hands back; `losses` (iterations - begun, terms) float32."""

    iteration: int
    terms: tuple[str, ...]
    losses: Tensor
    observed: int = 0
    """How many of the last terms are watched and not minimised."""
    begun: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    done_here: int = 0
    all_seconds: float = 0.0
    """Of all runs together, those before this one too."""


class Stop:
    """Notes SIGTERM and SIGINT, so that the iteration at hand is finished and saved first."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


@contextmanager
def stopping() -> Iterator[Stop]:
    """Signals only set a flag inside this block; a second one of the kind ends at once."""
    stop = Stop()
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, stop) for kind in kinds}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def make_optimizer(module: nn.Module, settings: Mapping[str, Any]) -> torch.optim.Adam:
    """Adam as configured: lr, betas, eps; one fused kernel per step.

    TensorFlow adds eps to the root of the second moment before its bias is corrected (Kingma & Ba
    2015, end of section 2), torch after; therefore eps changes with the step here.
    """
    optimizer = torch.optim.Adam(
        module.parameters(),
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        fused=True,
    )

    steps: int | None = None

    def correct_eps(adam: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal steps
        if steps is None or not adam.state:  # read once: on a GPU each reading waits for it
            steps = max((int(moments["step"]) for moments in adam.state.values()), default=0)
        steps += 1
        for group in adam.param_groups:
            group["eps"] = settings["eps"] / math.sqrt(1 - group["betas"][1] ** steps)

    optimizer.register_step_pre_hook(correct_eps)
    return optimizer


@dataclass
class Trainer:
    """Runs a task on a network until `plan.iterations`, from the last saved state on.

    With several processes each runs this loop over its part of every batch; the first one writes.
    """

    task: Task
    module: nn.Module
    optimizer: torch.optim.Optimizer
    plan: Plan
    device: torch.device
    average: WeightAverage | None = None
    begun: int = 0
    """Iterations that the weights had seen before this training."""
    rank: Rank = ALONE
    on_save: Callable[[Progress], None] | None = None
    """What else is written, by the first process, at the beginning and with each saved state."""
    terms: tuple[str, ...] = ()
    _earlier_s: float = 0.0
    """Seconds of the runs before this one."""
    _since: float | None = None
    _losses: list[Tensor] = field(default_factory=list)
    _unread: list[Tensor] = field(default_factory=list)

    def run(self) -> Outcome:
        """Trains; StateError where the saved state is beyond `plan.iterations`.

        After `plan.max_seconds` the state is saved and training ends with the weights as they are;
        after SIGTERM or SIGINT the state is saved and the process ends with 128 + the signal.
        """
        first = self._resume()
        outcome = Outcome(first, self.terms, torch.zeros(0, 0), begun=self.begun)
        outcome.observed = self.task.observed
        if first < self.plan.iterations and not self._is_time_up(first):
            with stopping() as stop:
                self._train(first, stop, outcome)
        outcome.all_seconds = self._earlier_s + outcome.seconds
        outcome.losses = torch.stack(self._losses) if self._losses else torch.zeros(0, 0)
        outcome.terms = self.terms
        return outcome

    def _resume(self) -> int:
        states = state_files(self.plan.work)
        if not states:
            self._check_iterations(self.begun, "the published checkpoint")
            return self.begun
        done = load_state(states[-1], self.module, self.optimizer, self._mean)
        self._check_iterations(done.iteration, str(states[-1]))
        self.begun, self.terms, self._losses = done.begun, done.terms, list(done.losses)
        self._earlier_s = done.seconds
        print(f"[train] going on from iteration {done.iteration} ({states[-1]})", flush=True)
        return done.iteration

    def _check_iterations(self, done: int, where: str) -> None:
        if done > self.plan.iterations:
            raise StateError(
                f"{where} is already at iteration {done}, beyond the {self.plan.iterations} asked "
                f"for; ask for `iterations` >= {done}, or delete {self.plan.work} to begin again"
            )

    def _train(self, first: int, stop: Stop, outcome: Outcome) -> None:
        plan = self.plan
        numbers = self.rank.samples(first, plan.iterations, self.task.batch_size)
        batches = Prefetcher(self.task, numbers, plan.workers, self.device)
        control = Control(plan.work, self.task.orders)
        self._since = begin = saved = time.monotonic()
        self._tell(first)
        with self._log(first) as writer, closing(iter(batches)) as samples:
            for iteration in self._iterations(first):
                self._step(samples, iteration, writer)
                late = self.rank.is_first and time.monotonic() - saved >= plan.checkpoint_seconds
                ordered = self._obey(control, iteration) if self.rank.is_first else set()
                last = STOP in ordered or (self.rank.is_first and self._is_time_up(iteration))
                due = self._is_due(iteration) or late or bool(ordered) or last
                ending, save, over = highest([stop.signal, due, last], self.rank)
                if ending or save:
                    self._save(iteration, writer)
                    saved = time.monotonic()
                if ending and iteration < plan.iterations:
                    highest([0], self.rank)  # no process ends before the state is written
                    print(f"[train] stopped at iteration {iteration}; run again to go on")
                    sys.exit(128 + ending)
                outcome.iteration = iteration
                if over:
                    break
        outcome.seconds = time.monotonic() - begin
        outcome.waited_s = batches.waited_s
        outcome.done_here = outcome.iteration - first

    @property
    def _elapsed_s(self) -> float:
        """Seconds that all runs took together so far."""
        return self._earlier_s + (time.monotonic() - self._since if self._since else 0.0)

    def _is_time_up(self, iteration: int) -> bool:
        """Whether training has had its time, which is then said. One iteration there always is."""
        plan = self.plan
        most = math.inf if plan.max_seconds is None else plan.max_seconds
        if not 0 < iteration < plan.iterations or self._elapsed_s < most:
            return False
        if self.rank.is_first:
            print(
                f"[train] its {most:g} s are over at iteration {iteration} of "
                f"{plan.iterations}; the network is what it is now, and goes on from here where "
                "more time is given",
                flush=True,
            )
        return True

    def _obey(self, control: Control, iteration: int) -> set[str]:
        """Follows the orders that came, and tells which of them the loop itself has to."""
        own = set()
        for order in control.orders():
            said = f"{order.word} {order.rest}".strip()
            try:
                if order.word in (SAVE, STOP):
                    own.add(order.word)
                    answer = "done"
                else:
                    answer = self.task.obey(order, iteration, self.plan.work)
            except ConfigError as error:
                answer = str(error)
            control.note(f"iteration {iteration}: {said}: {answer}")
        return own

    def _log(self, first: int) -> AbstractContextManager[SummaryWriter | None]:
        """Where the first process writes its scalars."""
        if not self.rank.is_first:
            return nullcontext()
        return SummaryWriter(str(self.plan.work / "log"), purge_step=first + 1)

    def _iterations(self, first: int) -> Iterable[int]:
        """The iterations after `first`, shown by the first process."""
        coming = range(first + 1, self.plan.iterations + 1)
        if not self.rank.is_first:
            return coming
        return progress(coming, len(coming), "train", "iterations")

    def _is_due(self, iteration: int) -> bool:
        plan = self.plan
        return iteration % plan.checkpoint_every == 0 or iteration == plan.iterations

    @property
    def result(self) -> nn.Module:
        """The network that the training is for: the mean where one is kept."""
        return self._mean or self.module

    @property
    def _mean(self) -> nn.Module | None:
        return self.average.module if self.average else None

    @cached_property
    def _network(self) -> nn.Module:
        """What is run: the module itself, or its compiled form over the same weights."""
        network = self.module
        if self.plan.compile:
            network = cast(nn.Module, torch.compile(network, dynamic=False))
        return shared(network, self.device, self.rank)

    def _step(self, samples: Iterator[Batch], iteration: int, writer: SummaryWriter | None) -> None:
        if self.task.begins_phase(iteration):
            self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        own = self.task.batch_size // self.rank.count
        losses = []
        batches = []
        for left in reversed(range(own)):
            batch = next(samples)
            batches.append(batch)
            with adding_up(self._network, last=left == 0):
                outputs, values = self._loss(batch)
                (values.sum() / own).backward()
            losses.append(values.detach())
            if len(losses) == 1:
                self._show(iteration, outputs, batch)
        if getattr(self.optimizer, "evaluates", False):
            self.optimizer.step(partial(self._again, batches))
        else:
            self.optimizer.step()
        if self.average:
            self.average.update(self.module, iteration)
        if self.rank.is_first:
            self.task.after_step(self.module, iteration, self.plan.work)
        self._unread.append(torch.stack(losses).mean(dim=0))
        if len(self._unread) >= LOSSES_AT_ONCE[self.device.type]:
            self._read_losses(writer)

    def _again(self, batches: list[Batch]) -> float:
        """Loss and gradients of the iteration's batches with the weights as they are now."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            with torch.enable_grad():
                loss = self._minimised(self._loss(batch)[1]) / len(batches)
            loss.backward()
            total += float(loss.detach())
        return total

    def _minimised(self, values: Tensor) -> Tensor:
        """Sum of the terms that are minimised."""
        return values[: len(values) - self.task.observed].sum()

    def _loss(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs for one sample, and its loss terms (terms,)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bf16):
            outputs = self.task.predict(self._network, batch)
        losses = self.task.losses(outputs, batch)
        self.terms = tuple(losses)
        return outputs, torch.stack(list(losses.values()))

    def _show(self, iteration: int, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Writes the first sample of the batch where a snapshot is due."""
        if self.rank.is_first and iteration % self.plan.snapshot_every == 0:
            pictures = self.task.pictures(outputs, batch)
            if not pictures:
                return
            folder = self.plan.work / "snapshots"
            save_snapshot(folder, iteration, pictures, self.task.voxel_size_nm)

    def _read_losses(self, writer: SummaryWriter | None) -> None:
        """Brings the last losses to the host; StateError where one is no number."""
        if not self._unread:
            return
        for values in mean(torch.stack(self._unread).cpu().float(), self.rank):
            self._losses.append(values)
            iteration = self.begun + len(self._losses)
            if not torch.isfinite(values).all():
                shown = dict(zip(self.terms, values.tolist(), strict=True))
                raise StateError(
                    f"the loss is no number at iteration {iteration}: {shown}; nothing was saved "
                    "since the last checkpoint. Lower `optimizer.lr` or set `precision: fp32`, "
                    f"and delete {self.plan.work} to begin again"
                )
            if writer:
                minimised = len(values) - self.task.observed
                writer.add_scalar("loss", float(values[:minimised].sum()), iteration)
                for name, value in zip(self.terms, values.tolist(), strict=True):
                    writer.add_scalar(f"loss/{name}", value, iteration)
        self._unread.clear()

    def _save(self, iteration: int, writer: SummaryWriter | None) -> None:
        self._read_losses(writer)
        if not self.rank.is_first:
            return
        save_state(self.plan.work, self.module, self.optimizer, self._done(iteration), self._mean)
        self._tell(iteration)

    def _done(self, iteration: int) -> Progress:
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0, 0)
        return Progress(iteration, self.terms, losses, self._elapsed_s)

    def _tell(self, iteration: int) -> None:
        if self.on_save and self.rank.is_first:
            self.on_save(self._done(iteration))
