"""Contingency tables that jobs counted in shares: saved, read and added up exactly."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, merge
from retrace.evaluation.counting import Counted
from retrace.files import atomic_write
from retrace.storage.shards import Shard, parse_shard

ARRAYS = ("segments", "truths", "counts")


def save_tables(path: Path, shard: Shard, tables: dict[str, Counted]) -> None:
    """Writes one npz: per entry its table and how many voxels are labelled."""
    arrays: dict[str, Any] = {}
    for number, counted in enumerate(tables.values()):
        for name in ARRAYS:
            arrays[f"{number}_{name}"] = getattr(counted.table, name)
    labelled = {name: counted.label_voxels for name, counted in tables.items()}
    content = io.BytesIO()
    np.savez_compressed(
        content, about=json.dumps({"shard": str(shard), "labelled": labelled}), **arrays
    )
    atomic_write(path, content.getvalue())


def _read(path: Path) -> tuple[Shard, dict[str, Counted]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            tables = {
                name: Counted(Contingency(*(file[f"{number}_{a}"] for a in ARRAYS)), voxels)
                for number, (name, voxels) in enumerate(about["labelled"].items())
            }
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run again") from error
    return parse_shard(about["shard"]), tables


def add(parts: Iterable[Counted]) -> Counted:
    """The sum of tables of disjoint voxels."""
    held = list(parts)
    return Counted(
        merge(part.table for part in held),
        sum(part.label_voxels for part in held),
    )


def read_tables(paths: Sequence[Path]) -> dict[str, Counted]:
    """Per entry the sum over all shares; DataError where a share is missing or there twice."""
    read = [_read(path) for path in paths]
    found = sorted(shard.index for shard, _ in read)
    count = read[0][0].count
    if found != list(range(1, count + 1)) or {shard.count for shard, _ in read} != {count}:
        raise DataError(
            f"tables of the shares {found} are given, 1 to {count} are needed: "
            f"{', '.join(str(path) for path in paths)}"
        )
    return {name: add(tables[name] for _, tables in read) for name in read[0][1]}
