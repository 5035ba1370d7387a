"""The outputs that each step read, and its cost, from the manifests next to the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retrace.files import read_parsed


@dataclass(frozen=True)
class StoreRecord:
    """A store's manifest: what the job read, and what it took."""

    store: str
    inputs: tuple[str, ...]
    seconds: float
    peak_memory_mb: float
    gpu: str | None
    image: str | None

    @property
    def step(self) -> str:
        """The step whose output this is."""
        return step_of(self.store)


@dataclass
class StepCost:
    """The sums of a step's jobs; `gpu_seconds`: of those that used a GPU."""

    step: str
    jobs: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def add(self, seconds: float, peak_memory_mb: float, gpu: str | None) -> None:
        """Counts one job."""
        self.jobs += 1
        self.seconds += seconds
        self.gpu_seconds += seconds if gpu else 0.0
        self.peak_memory_mb = max(self.peak_memory_mb, peak_memory_mb)


def step_of(path: str) -> str:
    """The step that writes a path: `prediction` of results/D/N/V/prediction.zarr, for example.

    `fetched` and `mask` for volumes, `source` for files of the user's.
    """
    parts = Path(path).parts
    if parts[:1] == ("data",):
        return "fetched"
    if "masks" in parts:
        return "mask"
    if "shards" in parts:
        return Path(path).stem.rsplit("_", 1)[0] + " (shards)"
    return Path(path).stem if parts[:1] == ("results",) else "source"


def read_store_records(folders: Iterable[Path]) -> list[StoreRecord]:
    """Every manifest below the folders, sorted by path."""
    # os.walk skips folders that running jobs remove meanwhile; rglob raises an error.
    walked = (step for folder in folders for step in os.walk(folder))
    files = {Path(place, name) for place, _, names in walked for name in names}
    manifests = sorted(path for path in files if path.name.endswith(".manifest.json"))
    return [read_parsed(path, partial(_store_record, path)) for path in manifests]


def _store_record(path: Path, content: Mapping[str, Any]) -> StoreRecord:
    image = content.get("image")
    return StoreRecord(
        store=str(path.with_name(content.get("store", path.name))),
        inputs=tuple(content.get("inputs", {})),
        seconds=float(content.get("seconds") or 0),
        peak_memory_mb=float(content.get("peak_memory_mb") or 0),
        gpu=content.get("gpu"),
        image=Path(image).name if image else None,
    )


def step_costs(
    records: Iterable[StoreRecord], histories: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row per step, the longest first: step, jobs, seconds, gpu_seconds, peak_memory_mb.

    `histories`: contents of training.json, because models have no manifest.
    """
    costs: dict[str, StepCost] = {}
    for record in records:
        cost = costs.setdefault(record.step, StepCost(record.step))
        cost.add(record.seconds, record.peak_memory_mb, record.gpu)
    for history in histories:
        cost = costs.setdefault("train", StepCost("train"))
        cost.add(history["seconds"], history.get("peak_memory_mb") or 0, history.get("gpu"))
    return [asdict(cost) for cost in sorted(costs.values(), key=lambda cost: -cost.seconds)]


def step_edges(records: Sequence[StoreRecord]) -> list[tuple[str, str]]:
    """Pairs (a, b): step b read an output of step a.

    Models have no manifest: training reads the masks, and the inputs of the masks.
    """
    pairs = {(step_of(path), record.step) for record in records for path in record.inputs}
    masks = [record for record in records if record.step == "mask"]
    pairs |= {(step_of(path), "model") for mask in masks for path in (mask.store, *mask.inputs)}
    return sorted((a, b) for a, b in pairs if a != b)
