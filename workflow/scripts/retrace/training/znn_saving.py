"""ZNN's network files while it trains: names, layouts and the learning curve in them.

Source: seung-lab/znn-release, python/front_end/znetio: PREFIX_init.h5 at the beginning,
PREFIX_ITERATION.h5 after every Num_iter_per_save iterations, PREFIX_current.h5 the last of them;
with is_stdio no the curve apart in PREFIX_statistics_ITERATION.h5 and PREFIX_statistics_current.h5.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrace.checkpoints.znn import as_curve, network_file, write_h5, write_statistics
from retrace.errors import DataError
from retrace.networks import ZnnNetwork
from retrace.training.state import Progress
from retrace.training.znn_family import read_test_curve
from retrace.training.znn_optimizer import ZnnOptimizer


def learning_curve(done: Progress, every: int, work: Path) -> dict[str, Any]:
    """ZNN's curve: the means of each `every` iterations, and the test passes."""
    full = len(done.losses) // every
    windows = done.losses[: full * every].double().split(every) if full else ()
    means = torch.stack([window.mean(dim=0) for window in windows]).T.tolist() if full else []
    columns = dict(zip(done.terms, means, strict=bool(full)))
    steps = [done.begun + every * (index + 1) for index in range(full)]
    tests = [row for row in read_test_curve(work) if row["it"] <= done.iteration]
    return {
        "train": {"it": steps, **columns},
        "test": {key: [row[key] for row in tests] for key in ("it", "err", "cls")},
    }


@dataclass
class NetFiles:
    """Writes them for one training, where its .cfg has a train_net_prefix."""

    network: Mapping[str, Any]
    module: ZnnNetwork
    optimizer: ZnnOptimizer
    work: Path
    _begin: tuple[int, float] = field(default_factory=lambda: (-1, 0.0))

    def __call__(self, done: Progress) -> None:
        """The files of an iteration, if ZNN writes any then; DataError where there is no place."""
        if self._begin[0] < 0:
            self._begin = (done.iteration, time.monotonic())
        if done.iteration % self.network["checkpoint_every"]:
            return
        try:
            self._write(done)
        except OSError as error:
            prefix, reason = self.network["net_files"]["prefix"], error.strerror or error
            raise DataError(
                f"networks cannot be written to train_net_prefix {prefix} ({reason}); make its "
                "folder, or correct the .cfg"
            ) from error

    def _write(self, done: Progress) -> None:
        told = self.network["net_files"]
        name = str(done.iteration) if done.iteration else "init"
        curve: dict[str, Any] = {}
        if done.iteration:
            rows = learning_curve(done, self.network["num_iter_per_show"], self.work)
            curve = {**as_curve(rows), "elapsed": self._seconds(done.iteration)}
        path = Path(f"{told['prefix']}_{name}.h5")
        file = network_file(self.module, self.network, curve, path, self._velocity)
        written = {"current": write_h5(file, is_stdio=told["is_stdio"])}
        if curve and not told["is_stdio"]:
            path = Path(f"{told['prefix']}_statistics_{name}.h5")
            written["statistics_current"] = write_statistics(curve, path)
        for current, source in written.items():
            partial = Path(f"{told['prefix']}_{current}.h5.partial")
            shutil.copyfile(source, partial)
            partial.replace(partial.with_suffix(""))

    def _seconds(self, iteration: int) -> float:
        """Of an iteration, since this run began."""
        first, begin = self._begin
        return (time.monotonic() - begin) / max(iteration - first, 1)

    def _velocity(self, weight: Tensor) -> Tensor:
        found: Tensor | None = self.optimizer.state.get(weight, {}).get("velocity")
        return torch.zeros_like(weight) if found is None else found
