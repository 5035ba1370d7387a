"""Which blocks of a volume are done: one line each, with a checksum of what was written."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.files import atomic_write
from retrace.geometry import VoxelBox

FILE = "done.jsonl"


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """16 hex digits over the bytes of the arrays, in their order."""
    hashed = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def drop_damaged(array: zarr.Array, folder: Path, region: VoxelBox) -> None:
    """Deletes the chunks of `array` (files in `folder`) in `region` that do not decode.

    A power cut can leave such; later writes into part of one would fail. `region`: voxels of the
    array (z, y, x); a leading channel axis is one chunk long.
    """
    edges = array.chunks[-3:]
    ranges = [
        range(begin // edge, -(-end // edge))
        for begin, end, edge in zip(region.offset, region.end, edges, strict=True)
    ]
    lead = (0,) * (array.ndim - 3)
    for spatial in product(*ranges):
        index = (*lead, *spatial)
        try:
            array.blocks[index]
        except (OSError, RuntimeError, ValueError):
            folder.joinpath(*map(str, index)).unlink(missing_ok=True)


class Journal:
    """Finished boxes in `folder`; survives a kill at any moment."""

    def __init__(self, folder: Path, file: str = FILE) -> None:
        """Reads what an earlier run left; a last line that a kill cut short is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / file
        self._done: dict[str, dict[str, Any]] = {}
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._done[entry["box"]] = {"checksum": entry["checksum"]} | entry
            except (ValueError, KeyError, TypeError):
                continue
        atomic_write(self.path, "".join(json.dumps(e) + "\n" for e in self._done.values()))

    @staticmethod
    def _key(box: VoxelBox) -> str:
        return f"{list(box.offset)}+{list(box.shape)}"

    def facts(self, box: VoxelBox) -> dict[str, Any]:
        """What was noted for `box`; empty where it is not done."""
        return self._done.get(self._key(box), {})

    def checksum_of(self, box: VoxelBox) -> str | None:
        """The checksum noted for `box`, None where it is not done."""
        return self.facts(box).get("checksum")

    def note(self, box: VoxelBox, value: str, **facts: int | float) -> None:
        """Notes `box` as written with checksum `value`, when, and what else is worth a look."""
        key = self._key(box)
        self._done[key] = {
            "box": key,
            "checksum": value,
            "finished": round(time.time(), 3),
            **facts,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(self._done[key]) + "\n")

    def keep(self, store: Path) -> None:
        """Leaves the lines beside the finished `store`, as NAME.blocks.jsonl."""
        atomic_write(store.with_name(f"{store.stem}.blocks.jsonl"), self.path.read_text())
