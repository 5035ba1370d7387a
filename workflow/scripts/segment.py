"""Affinities -> fragments and region graph (`fragments`) -> segments at a threshold (`apply`)."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import run
from retrace.manifest import check_manifest, digest, input_digest, manifest_path, write_manifest
from retrace.segmentation.apply import read_threshold, write_segments
from retrace.segmentation.settings import SegmentSettings, read_settings
from retrace.segmentation.whole import (
    FragmentStore,
    Inputs,
    blocks_at_once,
    check_affinities,
    make_edges,
    make_fragments,
    write_graph,
)
from retrace.volumes import open_volume, publish, writing


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    fragments = commands.add_parser("fragments", help="watershed and agglomeration, or mutex")
    fragments.add_argument("--prediction", required=True, type=Path, help="store with `affs`")
    fragments.add_argument("--mask", type=Path, help="store whose 0 voxels get no fragment")
    fragments.add_argument("--work", required=True, type=Path, help="folder that survives a kill")
    fragments.set_defaults(command=make_fragment_store)
    apply = commands.add_parser("apply", help="segments at the threshold of the validation volumes")
    apply.add_argument("--fragments", required=True, type=Path)
    apply.add_argument("--threshold-file", required=True, type=Path)
    apply.set_defaults(command=make_segments)
    for command in (fragments, apply):
        command.add_argument("--settings", required=True, type=json.loads)
        command.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def read_inputs(arguments: argparse.Namespace) -> Inputs:
    """The prediction, checked against its manifest, and the mask."""
    check_manifest(arguments.prediction)
    affinities = open_volume(arguments.prediction, "affs")
    if arguments.mask is None:
        return Inputs(affinities)
    name = arguments.settings.get("mask_array", "labels_mask")
    return Inputs(affinities, open_volume(arguments.mask, name))


def work_folder(arguments: argparse.Namespace, stores: Sequence[Path]) -> Path:
    """Scratch of exactly this work: other settings or inputs get another folder."""
    what = {k: v for k, v in arguments.settings.items() if k != "thresholds"}
    inputs = [input_digest(store) for store in stores]
    identity = {"settings": what, "in": inputs, "output": str(arguments.output.resolve())}
    return Path(arguments.work) / digest(identity)


def fill(store: FragmentStore, inputs: Inputs, settings: SegmentSettings, threads: int) -> int:
    """All fragments and edges into `store`; returns the number of edges."""
    make_fragments(inputs, store, settings, threads)
    if not settings.is_mutex:
        make_edges(inputs, store, settings)
    return write_graph(store, settings)


def make_fragment_store(arguments: argparse.Namespace) -> None:
    """Writes `fragments.zarr` (fragments, edges, scores) and its manifest, the manifest last."""
    begin = time.monotonic()
    output = arguments.output
    settings = read_settings(arguments.settings)
    inputs = read_inputs(arguments)
    check_affinities(inputs.affinities, settings)
    stores = [arguments.prediction, *([arguments.mask] if arguments.mask else [])]
    work = work_folder(arguments, stores)
    threads = blocks_at_once(inputs.affinities.box, settings)
    store = FragmentStore(output.with_name(output.name + ".partial"), work, inputs, settings)
    edges = fill(store, inputs, settings, threads)
    manifest_path(output).unlink(missing_ok=True)
    publish(store.store, output)
    write_manifest(
        output,
        inputs=stores,
        settings=arguments.settings,
        seconds=time.monotonic() - begin,
        extra={"edges": edges, "blocks": len(store.blocks)},
    )
    shutil.rmtree(work, ignore_errors=True)


def make_segments(arguments: argparse.Namespace) -> None:
    """Writes `segmentation.zarr` (segments) and its manifest, the manifest last."""
    begin = time.monotonic()
    check_manifest(arguments.fragments)
    threshold = read_threshold(arguments.threshold_file)
    manifest_path(arguments.output).unlink(missing_ok=True)
    with writing(arguments.output) as partial:
        joined = write_segments(arguments.fragments, threshold, partial)
    write_manifest(
        arguments.output,
        inputs=[arguments.fragments, arguments.threshold_file],
        settings=arguments.settings,
        seconds=time.monotonic() - begin,
        extra={"threshold": threshold, "joined_fragments": joined},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    arguments = parse_arguments(argv)
    arguments.command(arguments)


if __name__ == "__main__":
    run(main)
