"""What a family of networks brings to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from retrace.geometry import Triple
from retrace.networks import ElektronnNetwork, Network, UNet, ZnnNetwork
from retrace.training.control import Order
from retrace.training.ranks import Rank

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Picture:
    """One array of a snapshot: (Z, Y, X) or (C, Z, Y, X) at a place in the batch, nm."""

    data: Tensor
    offset_nm: Triple


class TakesNoOrders:
    """A task that knows no orders of its own."""

    @property
    def orders(self) -> Mapping[str, str]:
        return {}

    def obey(self, order: Order, iteration: int, work: Path) -> str:
        raise NotImplementedError(order.word)


class Task(Protocol):
    """Batches, losses and pictures of one family.

    `batch` depends on its number alone (and the seed the task was made with) and may run in any
    thread.
    """

    @property
    def batch_size(self) -> int:
        """Samples of one iteration."""
        ...

    @property
    def voxel_size_nm(self) -> Triple:
        """Of batches and pictures, (z, y, x)."""
        ...

    @property
    def observed(self) -> int:
        """How many of the last terms of `losses` are watched and not minimised."""
        ...

    def batch(self, number: int) -> Batch:
        """One sample, counted from 0 over all iterations, on the training device."""
        ...

    def begins_phase(self, iteration: int) -> bool:
        """Whether another loss begins with this iteration (from 1): the optimiser starts afresh."""
        ...

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The network's outputs for a batch; runs under autocast."""
        ...

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Terms (scalars) of one sample; their sum, averaged over a batch, is minimised."""
        ...

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """What a snapshot shows."""
        ...

    def after_step(self, module: nn.Module, iteration: int, work: Path) -> None:
        """What else an iteration ends with; may keep files in `work`."""
        ...

    @property
    def orders(self) -> Mapping[str, str]:
        """Orders that a running training obeys, and what each does."""
        ...

    def obey(self, order: Order, iteration: int, work: Path) -> str:
        """Follows one of them and says how; ConfigError for one that cannot be followed."""
        ...


Net = TypeVar("Net", UNet, ZnnNetwork, ElektronnNetwork)


@dataclass(frozen=True)
class Models:
    """Files of weights: to begin from, to read descriptors from, to go on from as published."""

    init: Path | None = None
    context: Path | None = None
    published: Path | None = None


def on_device(module: Net, device: torch.device) -> Net:
    """Channels last on a GPU; on CPUs the weight gradient is half as fast that way (measured)."""
    if device.type != "cuda":
        return module.to(device)
    return module.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


Made = tuple[Task, torch.optim.Optimizer, Network, int]
"""What a family brings to a training, and how many iterations its weights have seen."""


def set_threads(threads: int | None, rank: Rank) -> None:
    """As many as are given, or as torch would take, divided among the processes."""
    if threads or rank.count > 1:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // rank.count))
