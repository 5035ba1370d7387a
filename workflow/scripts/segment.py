"""Affinities -> fragments and region graph -> segments at a threshold.

On one machine `fragments` does the first and `apply` the second. In shares, each a job of its own:
`fragments --shard`, `edges --shard`, `join` (the only step over the whole volume, of its graph
alone), `apply --shard`; assemble.py puts the shares together after each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import ConfigError, run
from retrace.files import digest
from retrace.segmentation.apply import FragmentGraph, open_graph, read_threshold, write_segments
from retrace.segmentation.interior import from_interior
from retrace.segmentation.options import SegmentSettings, read_settings
from retrace.segmentation.volume import (
    EdgeParts,
    FragmentStore,
    Inputs,
    blocks_at_once,
    check_affinities,
    make_edges,
    make_fragments,
    make_grid,
    write_graph,
)
from retrace.storage.manifest import (
    check_manifest,
    input_digest,
    manifest_path,
    reading,
    write_manifest,
)
from retrace.storage.shards import WHOLE, Shard, parse_shard
from retrace.storage.volumes import (
    Volume,
    local_inputs,
    one_edition,
    open_source,
    open_volume,
    read_elsewhere,
)
from retrace.storage.zarr_writer import publish, write_list, writing

WORK_FORMAT = 2
"""Raised when what lies in the folder of scratch changes."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    fragments = commands.add_parser("fragments", help="watershed and agglomeration, or mutex")
    fragments.set_defaults(command=make_fragment_store)
    edges = commands.add_parser("edges", help="the region graph of a share of the blocks")
    edges.add_argument("--fragments", required=True, type=Path, help="those of all shares")
    edges.set_defaults(command=make_edge_store)
    for command in (fragments, edges):
        command.add_argument("--settings", required=True, type=json.loads)
        command.add_argument("--prediction", required=True, type=Path, help="its store")
        command.add_argument("--work", required=True, type=Path, help="folder that survives a kill")
    join = commands.add_parser("join", help="the segment of every fragment")
    join.set_defaults(command=make_lut)
    apply = commands.add_parser("apply", help="segments at the threshold of the validation volumes")
    apply.add_argument("--lut", type=Path, help="what `join` made; without it, made here")
    apply.set_defaults(command=make_segments)
    for command in (join, apply):
        command.add_argument("--fragments", required=True, type=Path)
        command.add_argument("--threshold-file", required=True, type=Path)
    for command in (fragments, edges, apply):
        command.add_argument("--shard", type=parse_shard, default=WHOLE, metavar="1-of-8")
    for command in (fragments, edges, join, apply):
        command.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def input_stores(arguments: argparse.Namespace) -> list[Path]:
    """Every store that fragments or edges are made from."""
    stores = [arguments.prediction]
    if "fragments" in arguments:
        stores.append(arguments.fragments)
    if mask := arguments.settings.get("tissue_mask"):
        stores += local_inputs([mask])
    return stores


def open_affinities(prediction: Path, boundary: str | None) -> Volume:
    """The predicted affinities, or those that follow from a boundary map."""
    if boundary is None:
        return open_volume(prediction, "affs")
    return from_interior(open_volume(prediction, boundary))


def read_inputs(arguments: argparse.Namespace, settings: SegmentSettings) -> Inputs:
    """The prediction, checked against its manifest and the network, and the mask."""
    check_manifest(arguments.prediction)
    affinities = open_affinities(arguments.prediction, settings.boundary)
    check_affinities(affinities, settings)
    mask = arguments.settings.get("tissue_mask")
    return Inputs(affinities, open_source(mask) if mask else None)


def check_shard(shard: Shard, settings: SegmentSettings) -> None:
    """ConfigError where a share is asked for of a volume that is one block."""
    if shard.count > 1 and settings.block_shape is None:
        raise ConfigError(
            f"shard {shard} of a volume that is one block; set `segment: block_shape` "
            "(z, y, x voxels), for example [256, 512, 512]"
        )


def work_folder(arguments: argparse.Namespace, mask: Volume | None) -> Path:
    """Scratch of exactly this work: other settings, inputs or shares get another folder."""
    elsewhere = mask.reader.record.edition if mask and mask.reader else None
    identity: dict[str, Any] = {
        "settings": {k: v for k, v in arguments.settings.items() if k != "thresholds"},
        "in": [*(input_digest(store) for store in input_stores(arguments)), elsewhere],
        "output": str(arguments.output.resolve()),
        "shard": str(arguments.shard),
        "format": WORK_FORMAT,
    }
    return Path(arguments.work) / digest(identity)


def partial_store(arguments: argparse.Namespace) -> Path:
    """Where the output is made before it gets its name."""
    output: Path = arguments.output
    return output.with_name(output.name + ".partial")


def finish(
    arguments: argparse.Namespace, mask: Volume | None, begin: float, facts: dict[str, Any]
) -> None:
    """Gives the finished store its name and writes its manifest last."""
    manifest_path(arguments.output).unlink(missing_ok=True)
    publish(partial_store(arguments), arguments.output)
    write_manifest(
        arguments.output,
        inputs=input_stores(arguments),
        settings=arguments.settings,
        seconds=time.monotonic() - begin,
        extra={**facts, "shard": str(arguments.shard)},
        read=read_elsewhere(mask),
    )


def make_fragment_store(arguments: argparse.Namespace) -> None:
    """Writes `fragments.zarr`, and its manifest last: fragments and counts, and without shares
    also edges and scores."""
    begin = time.monotonic()
    settings = read_settings(arguments.settings)
    check_shard(arguments.shard, settings)
    inputs = read_inputs(arguments, settings)
    work = work_folder(arguments, inputs.mask)
    threads = blocks_at_once(inputs.affinities.box, settings)
    store = FragmentStore(partial_store(arguments), work, inputs, settings, arguments.shard)
    facts = {"blocks": len(store.mine)}
    with one_edition(work, inputs.mask):
        make_fragments(inputs, store, settings, threads)
        if arguments.shard == WHOLE:
            parts = None if settings.is_mutex else EdgeParts(work, store.fragments, store.grid)
            if parts:
                make_edges(inputs, parts, settings)
            facts["edges"] = write_graph(store.group, parts, settings.method)
    store.journal.keep(arguments.output)
    finish(arguments, inputs.mask, begin, facts)
    shutil.rmtree(work, ignore_errors=True)


def make_edge_store(arguments: argparse.Namespace) -> None:
    """Writes edges and scores of a share of the blocks, and the manifest last."""
    begin = time.monotonic()
    settings = read_settings(arguments.settings)
    inputs = read_inputs(arguments, settings)
    check_manifest(arguments.fragments)
    blocks_at_once(inputs.affinities.box, settings)
    fragments = open_volume(arguments.fragments, "fragments")
    work = work_folder(arguments, inputs.mask)
    parts = EdgeParts(work, fragments, make_grid(inputs, settings), arguments.shard)
    if not settings.is_mutex:
        with one_edition(work, inputs.mask):
            make_edges(inputs, parts, settings)
    shutil.rmtree(partial_store(arguments), ignore_errors=True)
    group = zarr.open_group(partial_store(arguments), mode="w", zarr_format=2)
    edges = write_graph(group, None if settings.is_mutex else parts, settings.method)
    parts.journal.keep(arguments.output)
    facts = {"blocks": len(parts.mine), "edges": edges}
    finish(arguments, inputs.mask, begin, facts)
    shutil.rmtree(work, ignore_errors=True)


def make_lut(arguments: argparse.Namespace) -> None:
    """Writes `segments` (N,) uint64, the segment of every fragment, and the manifest last."""
    begin = time.monotonic()
    check_manifest(arguments.fragments)
    threshold = read_threshold(arguments.threshold_file)
    graph = open_graph(arguments.fragments)
    segments = graph.segments(threshold)
    with writing(arguments.output) as partial:
        group = zarr.open_group(partial, mode="w", zarr_format=2)
        write_list(group, "segments", segments).attrs["threshold"] = threshold
    write_manifest(
        arguments.output,
        inputs=[arguments.fragments, arguments.threshold_file],
        settings={},
        seconds=time.monotonic() - begin,
        extra=joined(graph, segments, threshold),
    )


def joined(graph: FragmentGraph, segments: np.ndarray, threshold: float) -> dict[str, Any]:
    """Numbers for the manifest: the threshold, fragments, and how many of them lost their id."""
    lost = int(np.count_nonzero(segments != graph.ids.ids()))
    return {"threshold": threshold, "fragments": len(segments), "joined_fragments": lost}


def read_lut(lut: Path, graph: FragmentGraph, threshold: float) -> np.ndarray:
    """The segments that `join` made; ConfigError where they are of other fragments."""
    check_manifest(lut)
    array: Any = zarr.open_group(lut, mode="r")["segments"]
    if array.shape != (graph.ids.total,) or array.attrs["threshold"] != threshold:
        raise ConfigError(f"{lut} is not of these fragments and this threshold; delete it, rerun")
    with reading(lut):
        return np.asarray(array[...])


def make_segments(arguments: argparse.Namespace) -> None:
    """Writes `segmentation.zarr` (segments) and its manifest, the manifest last."""
    begin = time.monotonic()
    check_manifest(arguments.fragments)
    threshold = read_threshold(arguments.threshold_file)
    graph = open_graph(arguments.fragments)
    given = arguments.lut is not None
    segments = read_lut(arguments.lut, graph, threshold) if given else graph.segments(threshold)
    manifest_path(arguments.output).unlink(missing_ok=True)
    with writing(arguments.output) as partial:
        voxels = write_segments(graph, segments, threshold, partial, arguments.shard)
    write_manifest(
        arguments.output,
        inputs=[arguments.fragments, arguments.threshold_file, *([arguments.lut] if given else [])],
        settings={},
        seconds=time.monotonic() - begin,
        extra={
            **joined(graph, segments, threshold),
            "voxels": voxels,
            "shard": str(arguments.shard),
        },
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    arguments = parse_arguments(argv)
    arguments.command(arguments)


if __name__ == "__main__":
    run(main)
