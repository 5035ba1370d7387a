"""Zarr formats 2 and 3 side by side: files, and speed of writing, assembling and reading.

    python benchmarks/zarr_formats.py
    python benchmarks/zarr_formats.py --repeats 5 --blocks 16 16 8

Affinities of a phantom block, repeated, are written tile by tile by two jobs, each with its
manifest, as predict.py does; their stores are linked into one, as assemble.py does; and all of it
is read in blocks with context, which compares the bytes with the manifest, as segment.py does.
The two formats take turns, so that other work on the machine slows both down.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sharded_run import SCRIPTS

sys.path.insert(0, str(SCRIPTS))

import assemble
from retrace.geometry import VoxelBox, blocks
from retrace.setting_types import ZarrFormat
from retrace.storage.chunk_index import chunk_files
from retrace.storage.manifest import write_manifest
from retrace.storage.shard_grid import shard_edges
from retrace.storage.shards import Shard
from retrace.storage.store_check import _CHECKS
from retrace.storage.unfinished import open_unfinished, write_complete_shards
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume, publish
from scale import BLOCK, VOXEL_SIZE_NM, block

JOBS = 2
CHUNKS = (64, 64, 64)
"""As `prediction_chunks` chooses them."""
TILE = (64, 128, 128)
READ, CONTEXT = (64, 256, 256), (16, 32, 32)
STEPS = ("write", "assemble", "read")


@dataclass(frozen=True)
class Case:
    """One format, and a folder for its stores."""

    zarr_format: ZarrFormat
    folder: Path
    data: np.ndarray
    """(3, Z, Y, X) uint8."""

    @property
    def box(self) -> VoxelBox:
        z, y, x = self.data.shape[-3:]
        return VoxelBox((0, 0, 0), (z, y, x))

    @property
    def stores(self) -> list[Path]:
        return [self.folder / f"job_{index}.zarr" for index in range(JOBS)]

    @property
    def whole(self) -> Path:
        return self.folder / "whole.zarr"

    def write(self) -> None:
        """Every job writes its part, tile by tile."""
        shards = shard_edges(self.box.shape, TILE, fewest=2 * JOBS)
        for index, store in enumerate(self.stores):
            partial = store.with_name(f"{store.name}.partial")
            create_volume(
                partial,
                "affs",
                shape=self.data.shape,
                chunks=(3, *CHUNKS),
                dtype=self.data.dtype,
                voxel_size_nm=VOXEL_SIZE_NM,
                offset_nm=(0, 0, 0),
                zarr_format=self.zarr_format,
                shards=shards,
            )
            array: Any = open_unfinished(partial)["affs"]
            for part in Shard(index + 1, JOBS).of(list(blocks(self.box, shards))):
                for tile in blocks(part, TILE):
                    region = (slice(None), *tile.slices())
                    array[region] = self.data[region]
                    write_complete_shards(array, region)
            publish(partial, store)
            write_manifest(store, inputs=[], settings={}, seconds=0)

    def assemble(self) -> None:
        """Links the stores of all jobs into one."""
        assemble.main(["--shards", *map(str, self.stores), "--output", str(self.whole)])

    def read(self) -> None:
        """Reads every block with its context, and compares the values."""
        _CHECKS.clear()
        volume = open_volume(self.whole, "affs")
        for part in blocks(self.box, READ):
            window = part.grow(CONTEXT).intersect(self.box)
            expected = self.data[(slice(None), *window.slices())]
            if not np.array_equal(volume.read(window), expected):
                sys.exit(f"format {self.zarr_format}: {window} has other values")


def seconds(run: Callable[[], None]) -> float:
    """How long a step takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(data: np.ndarray, zarr_format: ZarrFormat) -> dict[str, float]:
    """Seconds of each step, and the number of files and bytes of the assembled array."""
    with tempfile.TemporaryDirectory() as name:
        case = Case(zarr_format, Path(name), data)
        measured = {step: seconds(getattr(case, step)) for step in STEPS}
        files = chunk_files(case.whole / "affs")
        size = sum(file.stat().st_size for file in files)
        return {**measured, "files": len(files), "bytes": size}


def print_table(measured: dict[int, list[dict[str, float]]], megavoxels: float) -> None:
    """Both formats and their ratios; medians over the repeats."""
    middle = {
        zarr_format: {what: median(run[what] for run in runs) for what in runs[0]}
        for zarr_format, runs in measured.items()
    }
    print(f"{megavoxels:.0f} Mvoxel x 3 channels, medians of {len(measured[2])} runs in turn\n")
    print("| | format 2 | format 3 | ratio (range) |\n|---|---|---|---|")
    for what in ("files", "bytes"):
        two, three = middle[2][what], middle[3][what]
        print(f"| {what} | {two:,.0f} | {three:,.0f} | {three / two:.3f} |")
    for step in STEPS:
        rates = [megavoxels / middle[f][step] for f in (2, 3)]
        ratios = sorted(a[step] / b[step] for a, b in zip(measured[2], measured[3], strict=True))
        spread = f"{rates[1] / rates[0]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {step}, Mvoxel/s | {rates[0]:.1f} | {rates[1]:.1f} | {spread} |")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    size = {"nargs": 3, "type": int, "default": [8, 8, 8]}
    parser.add_argument("--blocks", **size, help="phantom blocks along z, y, x")  # type: ignore[arg-type]
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures both formats in turn."""
    args = parse_args(argv)
    data = np.tile(block()[1], (1, *args.blocks))
    measured: dict[int, list[dict[str, float]]] = {2: [], 3: []}
    formats: tuple[ZarrFormat, ...] = (2, 3)
    for repeat in range(args.repeats):
        for zarr_format in formats if repeat % 2 == 0 else formats[::-1]:
            measured[zarr_format].append(measure(data, zarr_format))
    print_table(measured, float(np.prod(BLOCK)) * float(np.prod(args.blocks)) / 1e6)


if __name__ == "__main__":
    main()
