"""ZNN's network files, written during a training: names, layouts, learning curve.

Source: seung-lab/znn-release, python/front_end/znetio. PREFIX_init.h5 at the beginning,
PREFIX_ITERATION.h5 after every Num_iter_per_save iterations, PREFIX_current.h5 a copy of the last;
with is_stdio off, the curve is in PREFIX_statistics_ITERATION.h5 and PREFIX_statistics_current.h5;
with logging on, PREFIX_log.txt has it as text, next to copies of the .cfg, the .znn and the .spec.

Where networks of an earlier training are, those of another one wait in its work folder until it is
complete.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrace.checkpoints.znn import (
    SgdParameters,
    as_curve,
    network_file,
    write_h5,
    write_statistics,
)
from retrace.config.znn_network import ZnnNetFiles, ZnnNetworkSettings
from retrace.errors import DataError
from retrace.networks import ZnnNetwork
from retrace.storage.owned_files import NETWORKS, check_owned, put_owned, znn_network_files
from retrace.training.state import TrainingProgress
from retrace.training.znn_curve import as_log, znn_learning_curve
from retrace.training.znn_optimizer import ZnnOptimizer

MARK = "net_files_in_place"
"""A file in the work folder of a training whose networks are at the prefix."""
WAITING = "net_files"
"""The folder in a work folder where networks wait."""


def sgd_of(network: ZnnNetworkSettings) -> SgdParameters:
    """The parameters of gradient descent of a network of the family znn."""
    return SgdParameters(network.eta, network.momentum, network.weight_decay)


def check_net_files(network: ZnnNetworkSettings, record: Path) -> None:
    """DataError where train_net_prefix holds networks that are not in the record."""
    if network.net_files is not None:
        check_owned(record, znn_network_files(network.net_files.prefix), NETWORKS)


@dataclass
class NetFiles:
    """Writes the network files of a training whose .cfg has a train_net_prefix."""

    network: ZnnNetworkSettings
    files: ZnnNetFiles
    module: ZnnNetwork
    optimizer: ZnnOptimizer
    work: Path
    record: Path
    """The record of the written files."""
    iterations: int
    """The last iteration of the training."""
    continued: int | None = None
    """The iteration of the network at the prefix that is continued; None for a new training."""
    measured_on: str = ""
    """Identity of the validation data."""
    _begin: tuple[int, float] = field(default_factory=lambda: (-1, 0.0))

    def __call__(self, progress: TrainingProgress) -> None:
        """Writes the files of an iteration at which ZNN writes any; DataError if that fails."""
        if self._begin[0] < 0:
            self._begin = (progress.iteration, time.monotonic())
        if progress.iteration == self.continued:
            return  # its file is there
        try:
            waits = self._waits()
            if progress.iteration % self.network.checkpoint_every == 0:
                every, data = self.network.num_iter_per_show, self.measured_on
                curve = znn_learning_curve(progress, every, self.work, data)
                self._write(progress.iteration, curve, waits)
                self._write_log(curve, waits)
            if waits and progress.iteration >= self.iterations:
                self._put_waiting()
        except OSError as error:
            prefix, reason = self.files.prefix, error.strerror or error
            raise DataError(
                f"networks cannot be written to train_net_prefix {prefix} ({reason}); make its "
                "folder, or correct the .cfg"
            ) from error

    def _waits(self) -> bool:
        """Whether networks of an earlier training stay at the prefix until this one is complete."""
        mark, current = self.work / MARK, Path(f"{self.files.prefix}_current.h5")
        if mark.exists():
            return False
        if current.exists() and self.continued is None:
            if not (self.work / WAITING).is_dir():
                (self.work / WAITING).mkdir(parents=True)
                print(f"[train] {current} stays until this training is complete", flush=True)
            return True
        self.work.mkdir(parents=True, exist_ok=True)
        mark.touch()
        return False

    def _put_waiting(self) -> None:
        for file in sorted((self.work / WAITING).iterdir()):
            final = Path(self.files.prefix).with_name(file.name)
            partial = final.with_name(f"{final.name}.partial")
            shutil.copyfile(file, partial)
            put_owned(self.record, partial, final, NETWORKS)
        (self.work / MARK).touch()
        shutil.rmtree(self.work / WAITING)

    def _write(self, iteration: int, learning_curve: Mapping[str, Any], waits: bool) -> None:
        name = str(iteration) if iteration else "init"
        curve: dict[str, Any] = {}
        if iteration:
            curve = {**as_curve(learning_curve), "elapsed": self._seconds(iteration)}
        path = self._place(f"_{name}.h5.new", waits)
        sgd = replace(sgd_of(self.network), eta=self.optimizer.eta)
        file = network_file(self.module, sgd, curve, path, self._velocity)
        written = {"": write_h5(file, is_stdio=self.files.is_stdio)}
        if curve and not self.files.is_stdio:
            path = self._place(f"_statistics_{name}.h5.new", waits)
            written["statistics_"] = write_statistics(curve, path)
        for kind, new in written.items():
            current = self._place(f"_{kind}current.h5", waits)
            partial = current.with_name(f"{current.name}.partial")
            shutil.copyfile(new, partial)
            for written_file, final in ((new, new.with_suffix("")), (partial, current)):
                self._put(written_file, final, waits)

    def _write_log(self, learning_curve: Mapping[str, Any], waits: bool) -> None:
        """With `logging`, writes the log so far, and the files that the training was started by."""
        if not self.files.recorded:
            return
        texts = {end: Path(path).read_text() for end, path in self.files.recorded.items()}
        for end, text in {**texts, "log.txt": as_log(learning_curve)}.items():
            final = self._place(f"_{end}", waits)
            partial = final.with_name(f"{final.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text)
            self._put(partial, final, waits)

    def _place(self, end: str, waits: bool) -> Path:
        """Where a file of the prefix is written."""
        prefix = self.files.prefix
        return Path((str(self.work / WAITING / Path(prefix).name) if waits else prefix) + end)

    def _put(self, new: Path, final: Path, waits: bool) -> None:
        if waits:
            new.replace(final)
        else:
            put_owned(self.record, new, final, NETWORKS)

    def _seconds(self, iteration: int) -> float:
        """Seconds per iteration in this run."""
        first, begin = self._begin
        return (time.monotonic() - begin) / max(iteration - first, 1)

    def _velocity(self, weight: Tensor) -> Tensor:
        velocity: Tensor | None = self.optimizer.state.get(weight, {}).get("velocity")
        return torch.zeros_like(weight) if velocity is None else velocity
