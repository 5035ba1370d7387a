"""What a family of networks brings to the training loop: batches, losses, pictures, commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from retrace.geometry import NmTriple
from retrace.networks import ElektronnNetwork, Network, UNet, ZnnNetwork
from retrace.planning.train_settings import TrainSettings
from retrace.training.control import Command
from retrace.training.ranks import Rank
from retrace.training.state import TrainingProgress, state_files

Batch = dict[str, Tensor]
"""Tensors of one sample by name; which names there are depends on the family."""


@dataclass(frozen=True)
class Picture:
    """One array of a snapshot, (Z, Y, X) or (C, Z, Y, X); its corner in the batch, nm (z, y, x)."""

    data: Tensor
    offset_nm: NmTriple


class PlainTask:
    """Defaults of a task: no commands, no phases, nothing after a step, nothing more to report."""

    @property
    def commands(self) -> Mapping[str, str]:
        """Commands beyond those of every training, and what each does: none."""
        return {}

    def as_command(self, line: str) -> str:
        """The line itself."""
        return line

    def handle(self, command: Command, iteration: int, work: Path) -> str:
        """Never called: there are no commands to handle."""
        raise NotImplementedError(command.word)

    def begins_phase(self, iteration: int) -> bool:
        """False: one loss from the first iteration to the last."""
        return False

    @property
    def data_terms(self) -> tuple[str, ...]:
        """None in particular: all minimised terms compare with data."""
        return ()

    @property
    def remedy(self) -> str:
        """Labels or masks are at fault in most families."""
        return (
            "No patch has a labelled voxel where the network predicts: correct the labels or "
            "`labels_mask` of the training volumes"
        )

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """No term: a batch always has something to compare with."""
        return {}

    def after_step(self, module: nn.Module, iteration: int, losses: Tensor, work: Path) -> None:
        """Does nothing."""

    def interrupted(self, progress: TrainingProgress, work: Path) -> None:
        """Does nothing."""

    def history(self, progress: TrainingProgress, work: Path) -> dict[str, Any]:
        """What the family adds to training.json: nothing."""
        return {}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the family stores with the weights: nothing."""
        return {}


class Task(Protocol):
    """Batches, losses and pictures of one family.

    A batch depends only on its number and the seed of the task; `batch` may run in any thread.
    """

    @property
    def batch_size(self) -> int:
        """Samples per iteration."""
        ...

    @property
    def voxel_size_nm(self) -> NmTriple:
        """Voxel size of batches and pictures, (z, y, x)."""
        ...

    @property
    def observed(self) -> int:
        """How many of the last terms of `losses` are monitored, not minimised."""
        ...

    def batch(self, number: int) -> Batch:
        """Sample `number`, counted from 0 over all iterations, on the training device."""
        ...

    def begins_phase(self, iteration: int) -> bool:
        """Whether the loss changes with this iteration (from 1); the optimiser is then reset."""
        ...

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The network's outputs for a batch, by head; runs under autocast."""
        ...

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Loss terms (scalars) of one sample; the mean over a batch of their sum is minimised."""
        ...

    @property
    def data_terms(self) -> tuple[str, ...]:
        """The minimised terms that compare with data; () for all minimised ones."""
        ...

    @property
    def remedy(self) -> str:
        """What the user corrects if a training had nothing to compare, as a sentence."""
        ...

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """For terms of `losses`, whether the batch had nothing to compare with: bool scalars."""
        ...

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """The arrays of a snapshot, by name."""
        ...

    def after_step(self, module: nn.Module, iteration: int, losses: Tensor, work: Path) -> None:
        """Runs after each iteration, in the first process; may write files to `work`.

        `losses` (terms,): of the iteration as recorded, with the weights before its step.
        """
        ...

    @property
    def commands(self) -> Mapping[str, str]:
        """Commands of this family to a running training, and what each does."""
        ...

    def as_command(self, line: str) -> str:
        """A line of the control file as a command; ConfigError for one that has none."""
        ...

    def handle(self, command: Command, iteration: int, work: Path) -> str:
        """Carries out one of `commands` and returns the reply; ConfigError for a bad argument."""
        ...

    def interrupted(self, progress: TrainingProgress, work: Path) -> None:
        """Runs in the first process before it ends because of a signal; may write to `work`."""
        ...

    def history(self, progress: TrainingProgress, work: Path) -> dict[str, Any]:
        """What the family adds to training.json after the training."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What the family stores with the weights."""
        ...


@dataclass(frozen=True)
class Measurement:
    """What was measured: `loss` and further values by name, and a picture (H, W, 3) uint8."""

    values: Mapping[str, float | None]
    image: np.ndarray | None = None


class ValidationData(Protocol):
    """How the networks of a family are measured, always on the same data."""

    @property
    def identity(self) -> str:
        """A digest of the data; measurements on other data are not compared."""
        ...

    def is_due(self, iteration: int) -> bool:
        """Whether the network is measured after an iteration."""
        ...

    def measure(self, module: nn.Module, iteration: int) -> Measurement:
        """The network, in evaluation and without gradients, after an iteration."""
        ...


@dataclass(frozen=True)
class WeightFiles:
    """Weights that a training starts from or reads.

    `init`: a model to initialise from. `context`: the network whose descriptors an auto-context
    network reads. `published`: the folder of a published checkpoint that training continues from.
    `resumed`: a network file of ZNN whose training is continued.
    """

    init: Path | None = None
    context: Path | None = None
    published: Path | None = None
    resumed: Path | None = None

    @property
    def present(self) -> list[Path]:
        """The files and folders that are set."""
        paths = (self.init, self.context, self.published, self.resumed)
        return [path for path in paths if path]


@dataclass(frozen=True)
class TrainingInputs:
    """What a family prepares a training from.

    `masks`: the labels-mask store of each volume that has one. `work`: this training's own folder.
    `processes`: how many open the volumes and share the host's memory. `written_files`: the record
    of files in folders of the user. `measured`: the versions of files that are only measured on.
    """

    settings: TrainSettings
    masks: Mapping[str, Path]
    weights: WeightFiles
    work: Path
    device: torch.device
    processes: int
    written_files: Path
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_new(self) -> bool:
        """Whether there is no saved state to resume from."""
        return not state_files(self.work)


class TrainingSetup(NamedTuple):
    """What a family prepares for the loop.

    `begun`: iterations of the weights before this training. `average_decay`: decay of the weights'
    moving average, None to keep none. `on_save`: writes further files with each saved state.
    `validation`: how networks are measured while they are trained; None without such data. `rate`:
    the learning rate of each iteration, from 1; None if the optimiser has its own.
    """

    task: Task
    optimizer: torch.optim.Optimizer
    module: Network
    begun: int = 0
    average_decay: float | None = None
    on_save: Callable[[TrainingProgress], None] | None = None
    validation: ValidationData | None = None
    rate: Callable[[int], float] | None = None


SetUp = Callable[[TrainingInputs, Any], TrainingSetup]
"""Prepares a training of one family for a newly built network."""


Net = TypeVar("Net", UNet, ZnnNetwork, ElektronnNetwork)


def on_device(module: Net, device: torch.device, *, bf16: bool = False) -> Net:
    """The module on the device, channels last where convolutions are faster that way.

    They are on a GPU, and in bf16 on a CPU, where forward and backward pass then take 0.6 times as
    long (measured). In float32 on a CPU both layouts are about as fast.
    """
    if device.type != "cuda" and not bf16:
        return module.to(device)
    return module.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def set_threads(threads: int | None, rank: Rank) -> None:
    """Divides `threads`, or torch's default number, among the processes of a training."""
    if threads or rank.count > 1:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // rank.count))
