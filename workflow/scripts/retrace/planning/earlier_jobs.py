"""What earlier jobs in this working directory took, from their manifests and records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from retrace.planning.work import alike, steps_of
from retrace.reading import json_if_intact
from retrace.records.record import KEY
from retrace.replacement import MANIFEST, RECORD
from retrace.storage.shards import parse_shard

MOST_SHARDS = 20
"""Manifests of the shards of one volume that are read; the others took as long."""
STORES = {
    "prediction": "predict",
    "whole_prediction": "predict_whole",
    "fragments": "fragments",
    "edges": "edges",
    "lut": "join",
    "segmentation": "segment",
}
"""By name of a store the rule that computes it."""
FILES = {
    "edge_classifier": "learn_edges",
    "threshold": "choose_threshold",
    "evaluation": "evaluate",
    "objects": "evaluate_objects",
}
"""By name of a JSON file the rule that writes it."""


@dataclass(frozen=True)
class EarlierJob:
    """A finished job: `amount` units of work in `seconds`, after `start_s` that do not grow.

    `alike`: see `work.Work`; `gpu`: its name, None for a job that used none.
    """

    alike: str
    amount: float
    seconds: float
    start_s: float
    peak_mb: float
    gpu: str | None
    file: str


def earlier_jobs(folder: Path = Path()) -> list[EarlierJob]:
    """The finished jobs whose work and time are known; damaged manifests are left out."""
    trainings = [_training(path) for path in sorted(folder.glob(f"results/*/*/model{RECORD}"))]
    jobs = [job for job in trainings if job is not None]
    for name, rule in FILES.items():
        for record in sorted(folder.glob(f"results/*/*/{name}{RECORD}")):
            jobs += _scored(record, rule)
    for volume in sorted(folder.glob("results/*/*/*/")):
        jobs += _of_volume(volume)
    for mask in sorted(folder.glob(f"results/*/masks/*{MANIFEST}")):
        jobs += _stored(mask, "mask", None)
    for fetched in sorted(folder.glob(f"data/*/*{MANIFEST}")):
        jobs += _fetched(fetched)
    return jobs


def _training(record: Path) -> EarlierJob | None:
    """A training, whose start is what its speed does not explain."""
    settings = _settings(json_if_intact(record))
    history = json_if_intact(record.with_name("training.json"))
    done, rate = history.get("iterations_this_run"), history.get("iterations_per_second")
    if settings is None or not done or not rate:
        return None
    seconds, training_s = float(history["seconds"]), done / rate
    processes = history.get("processes", 1)
    same = alike(["train"], settings, processes)
    start_s = max(0.0, seconds - training_s)
    peak = processes * float(history.get("peak_memory_mb") or 0)  # it is that of the first process
    gpu = history.get("gpu")
    return EarlierJob(same, done, training_s, start_s, peak, gpu, str(record))


def _scored(record: Path, rule: str) -> Iterator[EarlierJob]:
    """A job whose JSON file says under `origin` how long it took."""
    settings = _settings(json_if_intact(record))
    path = record.with_name(record.name.removesuffix(RECORD) + ".json")
    origin = json_if_intact(path).get("origin")
    if settings is not None and origin:
        yield _job(alike([rule], settings, inputs=origin.get("inputs") or ()), 1, origin, path)


def _of_volume(folder: Path) -> Iterator[EarlierJob]:
    """The jobs on one volume and on its shards."""
    whole = _mvoxels(json_if_intact(folder / f"prediction{MANIFEST}"))
    for store, rule in STORES.items():
        shards = folder.glob(f"shards/{store}_*-of-*{MANIFEST}")
        paths = [*islice(shards, MOST_SHARDS), *folder.glob(f"shards/{store}{MANIFEST}")]
        for path in [folder / f"{store}{MANIFEST}", *paths]:
            yield from _stored(path, rule, whole)


def _stored(path: Path, rule: str, whole: float | None) -> Iterator[EarlierJob]:
    """A job that wrote a store; `whole`: millions of voxels of its volume."""
    content = json_if_intact(path)
    settings, mvoxels = _settings(content), _mvoxels(content) or whole
    if settings is None or not mvoxels:
        return
    part = parse_shard(content.get("shard", "1-of-1")).count
    rule = f"assemble_{rule}" if "shares" in content else rule
    steps = steps_of(rule, is_shard=part > 1)
    gpus = (content.get("settings") or {}).get("gpus", 1)
    same = alike(steps, settings, gpus, content.get("inputs") or ())
    yield _job(same, mvoxels / part, content, path)


def _fetched(path: Path) -> Iterator[EarlierJob]:
    """A fetch, whose work is the number of bytes."""
    content = json_if_intact(path)
    if content.get("bytes"):
        yield _job(alike(["fetch"], {}), content["bytes"], content, path)


def _job(same: str, amount: float, content: Mapping[str, Any], path: Path) -> EarlierJob:
    peak = float(content.get("peak_memory_mb") or 0)
    seconds = float(content.get("seconds") or 0)
    return EarlierJob(same, amount, seconds, 0.0, peak, content.get("gpu"), str(path))


def _settings(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The deciding settings in a record; None where there is none."""
    settings = content.get(KEY, {}).get("settings")
    return settings if isinstance(settings, Mapping) else None


def _mvoxels(content: Mapping[str, Any]) -> float | None:
    """Millions of voxels of the first array that has a place in space."""
    for array in content.get("arrays", {}).values():
        if array.get("voxel_size_nm") and len(array["shape"]) >= 3:
            return math.prod(array["shape"][-3:]) / 1e6
    return None
