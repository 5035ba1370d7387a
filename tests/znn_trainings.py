"""Trainings of tiny ZNN networks in a folder with a tiny stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_znn as tiny
import train
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training.znn_family import ZnnTask
from tiny_training import arguments, training


def run(folder: Path, iterations: int, *more: str, data: Any = None, **changes: Any) -> Path:
    """Trains in `folder`; returns it."""
    folder.mkdir(exist_ok=True)
    data = data or tiny.dataset(folder.parent if not (folder / "raw.tif").exists() else folder)
    settings = training(data, tiny.network(data, **changes), iterations)
    train.main(arguments(folder, settings, *more))
    return folder


def task_of(folder: Path, data: Any = None, **changes: Any) -> ZnnTask:
    data = data or tiny.dataset(folder)
    settings = training(data, tiny.network(data, **changes), 1)
    trainer = build.build_trainer(read_train_settings(settings), {}, folder / "none")
    assert isinstance(trainer.task, ZnnTask)
    return trainer.task
