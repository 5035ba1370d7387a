"""A prediction segmented in shards by the real programs, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import assemble
import segment
from retrace.storage.shards import shard_names

SETTINGS: dict[str, Any] = {"fragments_in_xy": True, "block_shape": [8, 20, 22]} | {
    "block_context": [2, 10, 10]
}
THRESHOLD = 0.45


def shard_paths(folder: Path, name: str, count: int) -> list[Path]:
    """The stores of all shards."""
    return [folder / "shards" / f"{name}_{shard}.zarr" for shard in shard_names(count)]


def _shards(folder: Path, name: str, count: int) -> Iterator[tuple[str, Path]]:
    return zip(shard_names(count), shard_paths(folder, name, count), strict=True)


def assemble_stores(stores: Sequence[Path], output: Path) -> None:
    """assemble.py on its command line."""
    assemble.main(["--shards", *map(str, stores), "--output", str(output)])


def options(**places: object) -> list[str]:
    """--name value for each."""
    return [part for name, value in places.items() for part in (f"--{name}", str(value))]


def make_fragments(folder: Path, count: int, settings: dict[str, Any] = SETTINGS) -> Path:
    """Fragments of `folder`/prediction.zarr in `count` shards, assembled."""
    for shard, store in _shards(folder, "fragments", count):
        places = {"prediction": folder / "prediction.zarr", "work": folder / "work"}
        arguments = options(settings=json.dumps(settings), output=store, shard=shard, **places)
        segment.main(["fragments", *arguments])
    output = folder / "shards" / "fragments.zarr"
    assemble_stores(shard_paths(folder, "fragments", count), output)
    return output


def make_graph(folder: Path, count: int, settings: dict[str, Any] = SETTINGS) -> Path:
    """The region graph in `count` shards; `fragments.zarr` has all that one job writes."""
    fragments = folder / "shards" / "fragments.zarr"
    for shard, store in _shards(folder, "edges", count):
        places = {"prediction": folder / "prediction.zarr", "work": folder / "work"}
        arguments = options(settings=json.dumps(settings), output=store, shard=shard, **places)
        segment.main(["edges", *arguments, "--fragments", str(fragments)])
    output = folder / "fragments.zarr"
    assemble_stores([fragments, *shard_paths(folder, "edges", count)], output)
    return output


def make_segments(folder: Path, count: int, threshold: float = THRESHOLD) -> Path:
    """Segments in `count` shards through one table of all fragments."""
    (folder / "threshold.json").write_text(json.dumps({"threshold": threshold}))
    arguments = options(
        **{"fragments": folder / "fragments.zarr", "threshold-file": folder / "threshold.json"}
    )
    lut = folder / "shards" / "lut.zarr"
    segment.main(["join", *arguments, "--output", str(lut)])
    for shard, store in _shards(folder, "segmentation", count):
        segment.main(["apply", *arguments, *options(lut=lut, shard=shard, output=store)])
    output = folder / "segmentation.zarr"
    assemble_stores(shard_paths(folder, "segmentation", count), output)
    return output


def arrays(*stores: Path) -> dict[str, np.ndarray]:
    """Every array of the stores by name."""
    return {
        name: np.asarray(array[...])
        for store in stores
        for name, array in zarr.open_group(store, mode="r").arrays()
    }
