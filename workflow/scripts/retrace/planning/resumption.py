"""Trainings that continue the network of ZNN at train_net_prefix, as ZNN's own do.

The network is copied to results/DATASET/NETWORK/resumed.h5 before the training begins. The copy is
an input of the training, whose content decides the result like that of any other; the files at the
prefix are then continued. start.json next to it says for which settings it was copied: other ones
begin a new training, which continues from what is at the prefix by then.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from retrace.config.znn_network import ZnnNetworkSettings
from retrace.errors import ConfigError
from retrace.files import digest, write_json
from retrace.planning.paths import results
from retrace.planning.train_settings import TrainSettings
from retrace.planning.training_folders import data_of_states, network_of_states
from retrace.reading import json_if_intact
from retrace.storage.owned_files import RECORD, is_owned, log_files, own, znn_network_files
from retrace.znn.net_h5 import copy_with_curve, statistics_file, stored_iteration

COPY = "resumed.h5"
"""The network that a training continues."""
NOTE = "start.json"
"""For which settings it was copied."""


@dataclass(frozen=True)
class Start:
    """How a training begins: from `copy`, if there is one, which `source` is copied to first."""

    folder: Path
    settings: str
    """Digest of the settings of the training."""
    copy: Path | None = None
    source: Path | None = None

    def replaces(self, file: Path) -> bool:
        """Whether a training that continues a network writes a file at its prefix again.

        It adds networks of later iterations, and replaces the latest one, which was copied.
        """
        if file.resolve() in (one.resolve() for one in self.continued):
            return False
        number = re.fullmatch(r".*_(init|\d+)\.h5", file.name)
        return number is None or (number[1] != "init" and int(number[1]) > self.iteration)

    @property
    def continued(self) -> list[Path]:
        """The files that a training replaces by its own: the network, its curve, and the logs."""
        if self.source is None:
            return []
        prefix = str(self.source.with_name(self.source.stem.rpartition("_")[0]))
        return [self.source, statistics_file(self.source), *log_files(prefix)]

    @cached_property
    def iteration(self) -> int:
        """The iteration that the training continues from; 0 for a new one."""
        file = self.source or self.copy
        return stored_iteration(file) if file is not None and file.is_file() else 0


def planned_start(settings: TrainSettings, init: str | None) -> Start | None:
    """How a training begins; None for one that writes no networks of ZNN.

    `init`: the network that the user names. ConfigError if what it continues has nothing left to
    train.
    """
    network = settings.network
    if not isinstance(network, ZnnNetworkSettings) or network.net_files is None:
        return None
    folder = Path(results(settings.dataset.name, network.name))
    start = Start(folder, _digest(settings, init))
    source = _source(network.net_files.prefix, init)
    note = json_if_intact(folder / NOTE)
    if source is not None and _is_new(start, note, source, settings.iterations):
        start = Start(folder, start.settings, folder / COPY, source)
        _check_left(source, start.iteration, settings.iterations)
    elif note.get("settings") == start.settings and note.get("resumed"):
        start = Start(folder, start.settings, folder / COPY)
        _check_copy(start)
    return start


def _digest(settings: TrainSettings, init: str | None) -> str:
    """Of what tells one training of ZNN from another: all but its length, its seed and devices."""
    content = settings.plain()
    states = network_of_states(content["network"]), data_of_states(content["dataset"])
    return digest([*states, init])


def _source(prefix: str, init: str | None) -> Path | None:
    """The network at the prefix to continue: `init` if it is one of them, else the latest."""
    if init is not None:
        files = {file.resolve() for file in znn_network_files(prefix)}
        return Path(init) if Path(init).resolve() in files else None
    current = Path(f"{prefix}_current.h5")
    return current if current.is_file() else None


def _is_new(start: Start, note: Mapping[str, Any], source: Path, iterations: int) -> bool:
    """Whether a training continues from the network at the prefix, not from what it began with."""
    is_same = note.get("settings") == start.settings
    if is_owned(start.folder / RECORD, source):
        return bool(note) and not is_same
    if not (start.folder / "model.safetensors").is_file():
        return True
    done = json_if_intact(start.folder / "training.json").get("iterations", 0)
    return bool(note) and not (is_same and done >= iterations)


def _check_left(source: Path, done: int, iterations: int) -> None:
    if done >= iterations:
        raise ConfigError(
            f"{source} is at iteration {done}, and training ends at {iterations}, so nothing is "
            "left to train; raise Max_iter (or `iterations`), or move the file to start from "
            "iteration 0"
        )


def _check_copy(start: Start) -> None:
    assert start.copy is not None
    if not start.copy.is_file():
        raise ConfigError(
            f"{start.copy}, which this training continues, is gone; restore it, or remove "
            f"{start.folder / NOTE} to begin from what is at train_net_prefix"
        )


def is_copy(path: str) -> bool:
    """Whether a file is a network that is copied before its training begins."""
    return Path(path).name == COPY


@cache
def announce(source: Path, iteration: int) -> None:
    """Prints, once in a run, which network a training continues."""
    print(f"the training continues {source}, at iteration {iteration}", file=sys.stderr, flush=True)


def begin(start: Start) -> None:
    """Copies the network that a training continues, and notes for which settings."""
    note = {"settings": start.settings, "resumed": start.copy is not None}
    if start.source is not None and start.copy is not None:
        copy_with_curve(start.source, start.copy)
        own(start.folder / RECORD, start.continued)
    if start.source is not None or json_if_intact(start.folder / NOTE) != note:
        write_json(start.folder / NOTE, note)
