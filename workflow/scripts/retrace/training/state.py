"""The saved state of a training, from which it resumes after an interruption."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrace.checkpoints.torch_files import read_torch
from retrace.errors import StateError
from retrace.reading import DamagedError, reading_content
from retrace.replacement import sync_folder

KEEP = 2
FORMAT_VERSION = 2


@dataclass(frozen=True)
class TrainingProgress:
    """Finished iterations, and `losses` (n, terms) float32 of those since `begun`.

    `begun` is above 0 where training continues from published weights; losses before `begun` are
    unavailable.
    """

    iteration: int
    terms: tuple[str, ...]
    losses: Tensor
    seconds: float = 0.0
    """Training time of all runs together."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """The measurements on validation data, as `ValidationCurve.state` returns them."""

    @property
    def begun(self) -> int:
        """Iterations of the weights before this training."""
        return self.iteration - len(self.losses)


def state_files(work: Path) -> list[Path]:
    """The saved states, oldest first."""
    return sorted(work.glob("state_*.pt"))


def save_state(
    work: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: TrainingProgress,
    average: nn.Module | None = None,
) -> Path:
    """Writes a state atomically and deletes all but the last two; returns its path.

    `average`: the averaged weights, where the training keeps them.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"state_{progress.iteration:09d}.pt"
    partial = path.with_suffix(".partial")
    content = {
        "format_version": FORMAT_VERSION,
        "iteration": progress.iteration,
        "terms": list(progress.terms),
        "losses": progress.losses,
        "seconds": progress.seconds,
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average else {},
        "validation": dict(progress.validation),
    }
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(work)
    for old in state_files(work)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_state(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> TrainingProgress:
    """Loads a saved state into module, optimizer and average; reading it cannot run code.

    StateError if the file is damaged, or of another format version or network.
    """
    content = _read(path)
    if content.get("format_version") != FORMAT_VERSION:
        raise StateError(
            f"{path} was written by another version of retrace; delete {path.parent} and train "
            "again"
        )
    try:
        module.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        if average:
            average.load_state_dict(content["average"])
        _lay_out_like_parameters(optimizer)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise StateError(
            f"{path} holds the state of another network ({first}); delete {path.parent} and train "
            "again"
        ) from error
    # older states lack the last two
    seconds, validation = content.get("seconds", 0.0), content.get("validation", {})
    return TrainingProgress(
        content["iteration"], tuple(content["terms"]), content["losses"], seconds, validation
    )


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Gives the optimiser's moments the memory layout of their parameters.

    The fused step requires equal layouts, and a state may come from a device with another one.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it to resume from the state before it, if there is one"
    try:
        with reading_content(path, remedy):
            content: dict[str, Any] = read_torch(path)
            return dict(content)
    except DamagedError as error:
        raise StateError(f"{path} is damaged: it {error.fault}; {remedy}") from error
