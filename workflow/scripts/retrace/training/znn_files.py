"""ZNN's network files, written during a training: names, layouts, learning curve.

Source: seung-lab/znn-release, python/front_end/znetio. PREFIX_init.h5 at the beginning,
PREFIX_ITERATION.h5 after every Num_iter_per_save iterations, PREFIX_current.h5 a copy of the last;
with is_stdio off, the curve is in PREFIX_statistics_ITERATION.h5 and PREFIX_statistics_current.h5.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
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
from retrace.storage.owned_files import RECORD, check_unowned, claim, znn_network_files
from retrace.training.state import TrainingProgress
from retrace.training.znn_curve import znn_learning_curve
from retrace.training.znn_optimizer import ZnnOptimizer


def sgd_of(network: ZnnNetworkSettings) -> SgdParameters:
    """The parameters of gradient descent of a network of the family znn."""
    return SgdParameters(network.eta, network.momentum, network.weight_decay)


def check_net_files(network: ZnnNetworkSettings, work: Path) -> None:
    """DataError where train_net_prefix holds networks that no training next to `work` wrote."""
    if network.net_files is not None:
        files = znn_network_files(network.net_files.prefix)
        check_unowned(work.parent.glob(f"*/{RECORD}"), files, "train_net_prefix")


@dataclass
class NetFiles:
    """Writes the network files of a training whose .cfg has a train_net_prefix."""

    network: ZnnNetworkSettings
    files: ZnnNetFiles
    module: ZnnNetwork
    optimizer: ZnnOptimizer
    work: Path
    _begin: tuple[int, float] = field(default_factory=lambda: (-1, 0.0))

    def __call__(self, progress: TrainingProgress) -> None:
        """Writes the files of an iteration at which ZNN writes any; DataError if that fails."""
        if self._begin[0] < 0:
            self._begin = (progress.iteration, time.monotonic())
        if progress.iteration % self.network.checkpoint_every:
            return
        try:
            self._write(progress)
        except OSError as error:
            prefix, reason = self.files.prefix, error.strerror or error
            raise DataError(
                f"networks cannot be written to train_net_prefix {prefix} ({reason}); make its "
                "folder, or correct the .cfg"
            ) from error

    def _write(self, progress: TrainingProgress) -> None:
        name = str(progress.iteration) if progress.iteration else "init"
        curve: dict[str, Any] = {}
        if progress.iteration:
            rows = znn_learning_curve(progress, self.network.num_iter_per_show, self.work)
            curve = {**as_curve(rows), "elapsed": self._seconds(progress.iteration)}
        self._claim(name)
        path = Path(f"{self.files.prefix}_{name}.h5")
        file = network_file(self.module, sgd_of(self.network), curve, path, self._velocity)
        written = {"current": write_h5(file, is_stdio=self.files.is_stdio)}
        if curve and not self.files.is_stdio:
            path = Path(f"{self.files.prefix}_statistics_{name}.h5")
            written["statistics_current"] = write_statistics(curve, path)
        for current, source in written.items():
            partial = Path(f"{self.files.prefix}_{current}.h5.partial")
            shutil.copyfile(source, partial)
            partial.replace(partial.with_suffix(""))

    def _claim(self, name: str) -> None:
        """Records that the files of an iteration, and those of the last, are this training's."""
        kinds = ("", "statistics_")
        names = [f"{kind}{which}.h5" for kind in kinds for which in (name, "current")]
        files = [Path(f"{self.files.prefix}_{end}") for end in names]
        claim(self.work / RECORD, files)

    def _seconds(self, iteration: int) -> float:
        """Seconds per iteration in this run."""
        first, begin = self._begin
        return (time.monotonic() - begin) / max(iteration - first, 1)

    def _velocity(self, weight: Tensor) -> Tensor:
        velocity: Tensor | None = self.optimizer.state.get(weight, {}).get("velocity")
        return torch.zeros_like(weight) if velocity is None else velocity
