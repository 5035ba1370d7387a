"""The outputs that each step read, and its cost, from the manifests next to the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retrace.files import read_parsed
from retrace.replacement import MANIFEST, RECORD

LISTED = 20
"""Most paths of a step that the graph lists."""
NAMES = {"training": "model", "model": "model", "published": "model", "objects": "evaluation"}
"""Names of outputs whose step has another name."""


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

    experiment: str
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
    if parts[:1] != ("results",):
        return "source"
    name = Path(path).name.removesuffix(MANIFEST).split(".")[0]
    return NAMES.get(name, name)


def experiment_of(path: str) -> str:
    """The experiment that a result belongs to; the dataset of those that many networks share."""
    parts = Path(path).parts[1:-1]
    return "_".join(parts[:1] if "masks" in parts else parts[:2])


def read_store_records(folders: Iterable[Path]) -> list[StoreRecord]:
    """Every manifest below the folders, sorted by path."""
    manifests = sorted(_files_below(folders, MANIFEST))
    return [read_parsed(path, partial(_store_record, path)) for path in manifests]


def _files_below(folders: Iterable[Path], end: str) -> set[Path]:
    # os.walk skips folders that running jobs remove meanwhile; rglob raises an error.
    walked = (step for folder in folders for step in os.walk(folder))
    files = (Path(place, name) for place, _, names in walked for name in names)
    return {path for path in files if path.name.endswith(end)}


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


@dataclass(frozen=True)
class Derived:
    """A result and the paths that it was computed from."""

    path: str
    inputs: tuple[str, ...]

    @property
    def step(self) -> str:
        """The step whose output this is."""
        return step_of(self.path)


def read_lineage(folders: Iterable[Path], files: Iterable[Path] = ()) -> list[Derived]:
    """Every result below the folders with a manifest or a record, and those of `files`.

    Sorted by path.
    """
    found = {*_files_below(folders, MANIFEST), *_files_below(folders, RECORD)}
    found |= {path for path in files if path.is_file()}
    return [read_parsed(path, partial(_derived, path)) for path in sorted(found)]


def _derived(path: Path, content: Mapping[str, Any]) -> Derived:
    inputs = {**content.get("inputs", {}), **content.get("identity", {}).get("inputs", {})}
    if path.name.endswith(RECORD):
        return Derived(str(path).removesuffix(RECORD), tuple(inputs))
    return Derived(str(path.with_name(content.get("store", path.name))), tuple(inputs))


def step_costs(
    records: Iterable[StoreRecord], others: Iterable[tuple[str, str, Mapping[str, Any]]]
) -> list[StepCost]:
    """The cost of each step of each experiment, the longest first.

    `others`: experiment, step and JSON of results without a manifest, such as models.
    """
    costs: dict[tuple[str, str], StepCost] = {}

    def cost_of(experiment: str, step: str) -> StepCost:
        return costs.setdefault((experiment, step), StepCost(experiment, step))

    for record in records:
        cost = cost_of(experiment_of(record.store), record.step)
        cost.add(record.seconds, record.peak_memory_mb, record.gpu)
    for experiment, step, facts in others:
        seconds, peak_mb = facts.get("seconds") or 0.0, facts.get("peak_memory_mb") or 0.0
        cost_of(experiment, step).add(float(seconds), peak_mb, facts.get("gpu"))
    return sorted(costs.values(), key=lambda cost: -cost.seconds)


def step_edges(results: Sequence[Derived]) -> list[tuple[str, str]]:
    """Pairs (a, b): step b read an output of step a."""
    pairs = {(step_of(path), result.step) for result in results for path in result.inputs}
    return sorted((a, b) for a, b in pairs if a != b)


def step_notes(results: Sequence[Derived]) -> dict[str, list[str]]:
    """By step: how many results it has, and their paths."""
    paths: dict[str, dict[str, str]] = {}
    for path in sorted({path for one in results for path in (one.path, *one.inputs)}):
        step = step_of(path)
        # A job's outputs, and a store and its manifest, count as one result.
        is_shared = step in ("fetched", "mask", "source")
        paths.setdefault(step, {}).setdefault(path if is_shared else str(Path(path).parent), path)
    return {step: [_count(len(some)), *_first(list(some.values()))] for step, some in paths.items()}


def _count(number: int) -> str:
    return f"{number} result{'s' if number != 1 else ''}"


def _first(paths: Sequence[str]) -> list[str]:
    rest = len(paths) - LISTED
    return [*paths[:LISTED], *([f"and {rest} more"] if rest > 0 else [])]
