"""The saved state of a training, from which it goes on after any kill."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrace.errors import StateError
from retrace.files import sync_folder

KEEP = 2
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Progress:
    """Finished iterations, and the loss `terms` of those since `begun`.

    `losses` (n, terms) float32. `begun` is above 0 where training goes on from published weights,
    whose losses nobody kept.
    """

    iteration: int
    terms: tuple[str, ...]
    losses: Tensor
    seconds: float = 0.0
    """That all runs took together."""

    @property
    def begun(self) -> int:
        return self.iteration - len(self.losses)


def state_files(work: Path) -> list[Path]:
    """The saved states, oldest first."""
    return sorted(work.glob("state_*.pt"))


def save_state(
    work: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: nn.Module | None = None,
) -> Path:
    """Writes a state aside, syncs it to disk, renames it, and drops all but the last two.

    `average`: the mean weights, where the training keeps them.
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
) -> Progress:
    """Fills all three from a saved state, which may run no code when it is read.

    StateError where the file is damaged, of another version, or of another network.
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
    seconds = content.get("seconds", 0.0)  # states of earlier days have none
    return Progress(content["iteration"], tuple(content["terms"]), content["losses"], seconds)


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Gives moments the memory layout of their parameters: the fused step assumes that they agree,
    and a state may come from a device with another layout."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StateError(
            f"{path} is damaged ({first}); delete it to go on from the state before it, if there "
            "is one"
        ) from error
    return content
