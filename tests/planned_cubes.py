"""A dataset of two volumes in one HDF5 file, and plans of experiments with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from retrace.config.workflow import WorkflowConfig
from retrace.planning.experiment import Planner

SHAPE = (20, 50, 60)
VOXEL_NM = [10, 10, 10]


def write_cubes(folder: Path) -> None:
    """Writes raw and labels of the volumes a and b to cubes.h5; makes the folder of datasets."""
    (folder / "config" / "datasets").mkdir(parents=True)
    with h5py.File(folder / "cubes.h5", "w") as file:
        for name in "ab":
            file[f"{name}/raw"] = np.zeros(SHAPE, np.uint8)
            file[f"{name}/labels"] = np.ones(SHAPE, np.uint32)


def content(**changes: Any) -> dict[str, Any]:
    """The file of a dataset whose volume a is trained on, and b tested."""
    volumes = {
        name: {
            "raw": {"path": "cubes.h5", "array": f"{name}/raw"},
            "labels": {"path": "cubes.h5", "array": f"{name}/labels"},
        }
        for name in "ab"
    }
    return {
        "name": "mine",
        "voxel_size_nm": VOXEL_NM,
        "volumes": volumes,
        "train": ["a"],
        "validation": [part("a", [0, 0, 0], [50, 200, 200])],
        "test": ["b"],
        **changes,
    }


def part(volume: str, offset: list[int], shape: list[int]) -> dict[str, Any]:
    """An entry of a split."""
    return {"volume": volume, "roi_nm": {"offset": offset, "shape": shape}}


def plan(
    dataset: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    verb: str = "evaluate",
    *,
    network: str = "mtlsd_small",
    runs_here: bool = False,
) -> None:
    """Plans an experiment of the working directory; refusals are raised."""
    Path("config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset or content()))
    config = WorkflowConfig.model_validate(dict(settings or {})).complete(deep=True)
    Planner(Path(), config, runs_here=lambda: runs_here).experiment(verb, "mine", network)
