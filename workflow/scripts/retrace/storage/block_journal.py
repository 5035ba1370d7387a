"""Journal of a volume's finished blocks: one line each, with a checksum of the written data."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.files import atomic_write
from retrace.geometry import VoxelBox
from retrace.reading import existing_bytes, if_intact, parse_json_object
from retrace.replacement import declare_with
from retrace.storage.unfinished import drop_chunk

JOURNAL_NAME = "done.jsonl"


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """16 hex digits over the bytes of several arrays, in order."""
    hashed = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def drop_damaged(array: zarr.Array, folder: Path, region: VoxelBox) -> None:
    """Deletes the chunks of `array` (files in `folder`) in `region` that cannot be decoded.

    A power cut can leave such chunks, and writing into a part of one would fail. `region`: voxels
    of the array (z, y, x). An array with channels has all of them in one chunk.
    """
    edges = array.chunks[-3:]
    ranges = [
        range(begin // edge, -(-end // edge))
        for begin, end, edge in zip(region.offset, region.end, edges, strict=True)
    ]
    lead = (0,) * (array.ndim - 3)
    for spatial in product(*ranges):
        index = (*lead, *spatial)
        if if_intact(partial(array.blocks.__getitem__, index), folder) is None:
            drop_chunk(array, folder, index)


def _entry(line: bytes) -> dict[str, Any]:
    """One line of a journal."""
    entry = parse_json_object(line, "a journal")
    return {"box": str(entry["box"]), "checksum": str(entry["checksum"])} | entry


class Journal:
    """The finished boxes of a volume, in a file of `folder`; an interruption loses at most one."""

    def __init__(self, folder: Path, file: str = JOURNAL_NAME) -> None:
        """Reads the journal of an earlier run, without an incomplete last line."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / file
        self._done: dict[str, dict[str, Any]] = {}
        for line in (existing_bytes(self.path) or b"").splitlines():
            if entry := if_intact(partial(_entry, line), self.path):
                self._done[entry["box"]] = entry
        atomic_write(self.path, "".join(json.dumps(e) + "\n" for e in self._done.values()))

    @staticmethod
    def _key(box: VoxelBox) -> str:
        return f"{list(box.offset)}+{list(box.shape)}"

    def facts(self, box: VoxelBox) -> dict[str, Any]:
        """The entry of `box`; empty if it is not finished."""
        return self._done.get(self._key(box), {})

    def checksum_of(self, box: VoxelBox) -> str | None:
        """The checksum of `box`, None if it is not finished."""
        return self.facts(box).get("checksum")

    def note(self, box: VoxelBox, value: str, **facts: int | float) -> None:
        """Adds `box` with the checksum `value` of its data, the time, and further `facts`."""
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
        """Copies the journal next to the finished `store`, as NAME.blocks.jsonl."""
        kept = store.with_name(f"{store.stem}.blocks.jsonl")
        declare_with(store, kept)
        atomic_write(kept, self.path.read_text())
