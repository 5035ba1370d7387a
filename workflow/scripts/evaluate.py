"""Scores segmentations: chooses a threshold on validation volumes, scores test volumes.

    evaluate.py count   --settings JSON --volume V --split test --store F.zarr --array fragments
                        --shard 1-of-8 --output tables.npz
    evaluate.py choose  --settings JSON --fragments V=F.zarr ... --output threshold.json
    evaluate.py score   --settings JSON --fragments V=F.zarr ... --segmentation V=S.zarr ...
                        --threshold-file threshold.json --output evaluation.json --plot PNG
    evaluate.py compare --labels FILE:ARRAY --segmentation NAME=FILE:ARRAY ... [--roi-nm z0:z1,...]
    evaluate.py nodes   --settings JSON --volume V --fragments F.zarr --threshold-file JSON
                        --output nodes
    evaluate.py rescore nodes/skeletons.npz [--segmentation NAME=FILE:ARRAY] [--csv NAME=FILE]

The settings are one JSON object: `dataset` (name, background_ids, volumes, validation, test),
`thresholds` [low, high, step], and for score `untrained`, `merge_threshold` and `compute_mincut`.
The truth of an entry is its volume's labels, or, where there are none, the entry's skeletons.
`choose` and `score` count voxels themselves, or take what `count` counted in shares
(--fragment-tables and --segment-tables, once for each volume). `nodes` writes what every skeleton
node lies in, `rescore` scores such tables again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.command_line import add_job, named_paths, parse_job
from retrace.errors import DataError, run
from retrace.evaluation.counting import Counted, Truth, count_volumes
from retrace.evaluation.curve import (
    open_region_graph,
)
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.evaluation.ground_truth import read_entries, read_truth
from retrace.evaluation.nodes import node_table, read_segments, read_table, write_table
from retrace.evaluation.plots import table
from retrace.evaluation.scores import CONVENTION, score
from retrace.evaluation.segmentation import (
    Inputs,
    _coverage,
    _write_json,
    choose,
    score_all,
    skeleton_sets,
)
from retrace.evaluation.skeletons import (
    sample_nodes,
    skeleton_scores,
)
from retrace.evaluation.tables import read_tables, save_tables
from retrace.files import read_json
from retrace.geometry import NmBox, triple
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list
from retrace.storage.manifest import check_manifest, input_digest, write_manifest
from retrace.storage.shards import shard_of
from retrace.storage.volumes import Volume, open_volume, recording_opened
from retrace.storage.zarr_writer import writing


def count_share(args: argparse.Namespace) -> None:
    """Writes the tables of a share of the blocks for all entries of one volume in one split."""
    check_manifest(args.store)
    volume, masks = open_volume(args.store, args.settings["array"]), args.masks
    entries = [
        e
        for e in read_entries(args.settings, args.settings["split"])
        if e.volume == args.settings["volume"]
    ]
    tables = {}
    for entry in progress(entries, len(entries), "count", "entries"):
        truth = read_truth(args.settings, entry, masks)
        tables[f"{args.settings['array']} {entry.name}"] = count_volumes(
            volume, truth, threads=args.threads, shard=shard_of(args.execution)
        )
    save_tables(args.output, shard_of(args.execution), tables)


def _read_counted(args: argparse.Namespace) -> dict[str, Counted]:
    """All tables that the command line names, which come volume by volume."""
    found: dict[str, Counted] = {}
    for paths in [*args.fragment_tables.values(), *args.segment_tables.values()]:
        found |= read_tables([Path(path) for path in paths])
    return found


def compare(args: argparse.Namespace) -> None:
    """Scores existing segmentations on the same voxels, prints a table, writes JSON on request."""
    truth = Truth(
        _open_named(args.labels, args.voxel_size_nm),
        _open_named(args.mask, args.voxel_size_nm) if args.mask else None,
        args.roi_nm,
        tuple(args.background_id),
    )
    rows: dict[str, Any] = {}
    for text in args.segmentation:
        name, _, source = text.partition("=") if "=" in text else (text, "=", text)
        volume = _open_named(source, args.voxel_size_nm)
        if args.fill_unassigned:
            volume = fill_unassigned(volume)
        counted = count_volumes(volume, truth, threads=args.threads)
        rows[name] = {**score(counted.table).as_dict(), **_coverage(counted)}
    print(table(rows), flush=True)
    if args.output:
        _write_json(args.output, {"convention": CONVENTION, "segmentations": rows})


def write_nodes(args: argparse.Namespace) -> None:
    """Writes a table for each set of skeletons of the volume's test entries; the manifest last."""
    begin = time.monotonic()
    check_manifest(args.fragments)
    fragments, graph = open_volume(args.fragments, "fragments"), open_region_graph(args.fragments)
    threshold = float(read_json(args.threshold_file)["threshold"])
    thresholds = threshold_list(*args.settings["thresholds"])
    entries = [
        e for e in read_entries(args.settings, "test") if e.volume == args.settings["volume"]
    ]
    with writing(args.output) as folder:
        for index, entry in enumerate(progress(entries, len(entries), "nodes", "entries"), 1):
            for key, skeletons in skeleton_sets(entry, fragments).items():
                if not len(skeletons.skeleton):
                    raise DataError(f"no node of {key} lies inside {entry.name}; correct `roi_nm`")
                found = node_table(fragments, skeletons, graph, thresholds, threshold)
                write_table(folder / f"{key}{f'_{index}' if index > 1 else ''}.npz", found)
    files = {path.name: input_digest(path) for path in sorted(args.output.iterdir())}
    write_manifest(
        args.output,
        inputs=[args.fragments, args.threshold_file],
        settings=args.settings,
        seconds=time.monotonic() - begin,
        extra={"files": files},
    )
    print(f"[nodes] {args.output}: {', '.join(files)}", flush=True)


def rescore(args: argparse.Namespace) -> None:
    """Scores a table at its threshold or another one, and other segmentations at its nodes."""
    found = read_table(args.table)
    threshold = found.threshold if args.threshold is None else args.threshold
    size = triple(found.voxel_size_nm.tolist())
    segments = {f"threshold {threshold:g}": found.at(threshold)}
    for name, source in named_paths(args.segmentation).items():
        volume = _open_named(str(source), size)
        segments[name] = sample_nodes(volume, found.skeletons)
    for name, path in named_paths(args.csv).items():
        segments[name] = read_segments(path, len(found.fragment))
    rows = {
        name: skeleton_scores(found.skeletons, ids, args.merge_threshold)
        for name, ids in segments.items()
    }
    for name, scores in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in scores.items()))
    if args.output:
        _write_json(args.output, {"convention": CONVENTION, "tables": rows})


def _open_named(text: str, voxel_size_nm: Sequence[int] | None) -> Volume:
    path, _, array = text.rpartition(":")
    return open_volume(path, array, voxel_size_nm) if path else open_volume(text, "", voxel_size_nm)


def _parse_roi(text: str) -> NmBox:
    try:
        ends = [[int(value) for value in axis.split(":")] for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ends
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not z0:z1,y0:y1,x0:x1 (nm)") from error
    return NmBox((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))


def _parse_triple(text: str) -> tuple[int, int, int]:
    return triple([int(value) for value in text.split(",")])


def _add_store_options(parser: argparse.ArgumentParser, file: Sequence[str] = ()) -> None:
    add_job(
        parser,
        file=file,
        files_by_name=["fragments", "masks", "segmentation"],
        file_lists_by_name=["fragment_tables", "segment_tables"],
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that read and count")
    parser.add_argument("--output", required=True, type=Path)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_store_options(verbs.add_parser("choose", help="choose the threshold on validation"))
    scoring = verbs.add_parser("score", help="score the test volumes at the chosen threshold")
    _add_store_options(scoring, ["threshold_file"])
    scoring.add_argument("--plot", type=Path)
    counting = verbs.add_parser("count", help="count a share of one volume's voxels")
    add_job(counting, file=["store"], files_by_name=["masks"], has_shard=True)
    counting.add_argument("--threads", type=int, default=1)
    counting.add_argument("--output", required=True, type=Path, help="npz")
    comparing = verbs.add_parser("compare", help="score any segmentations against labels")
    comparing.add_argument("--labels", required=True, metavar="FILE:ARRAY")
    comparing.add_argument("--segmentation", required=True, nargs="+", metavar="NAME=FILE:ARRAY")
    comparing.add_argument("--mask", metavar="FILE:ARRAY", help="voxels of 0 do not count")
    comparing.add_argument("--roi-nm", type=_parse_roi, metavar="z0:z1,y0:y1,x0:x1")
    comparing.add_argument("--voxel-size-nm", type=_parse_triple, metavar="z,y,x")
    comparing.add_argument("--background-id", type=int, action="append", default=[])
    comparing.add_argument("--fill-unassigned", action="store_true", help="grow into voxels of 0")
    comparing.add_argument("--threads", type=int, default=1)
    comparing.add_argument("--output", type=Path, help="JSON")
    _add_node_verbs(verbs)
    return parse_job(parser, argv)


def _add_node_verbs(verbs: Any) -> None:
    making = verbs.add_parser("nodes", help="write what each skeleton node of a volume lies in")
    add_job(making, file=["fragments", "threshold_file"])
    making.add_argument("--output", required=True, type=Path, help="folder")
    scoring = verbs.add_parser("rescore", help="score a table of nodes")
    scoring.add_argument("table", type=Path, metavar="NODES.npz")
    scoring.add_argument("--threshold", type=float, help="one of the table's; else the chosen one")
    for name, source in (("segmentation", "FILE:ARRAY"), ("csv", "FILE")):
        help_text = "another segmentation of the same nodes"
        scoring.add_argument(
            f"--{name}", nargs="+", default=[], metavar=f"NAME={source}", help=help_text
        )
    scoring.add_argument("--merge-threshold", type=int, default=1, help="nodes that make a merger")
    scoring.add_argument("--output", type=Path, help="JSON")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    others = {"compare": compare, "count": count_share, "nodes": write_nodes, "rescore": rescore}
    if args.verb in others:
        others[args.verb](args)
        return
    with recording_opened() as opened:
        inputs = Inputs(
            args.fragments,
            args.masks,
            args.segmentation,
            args.threads,
            _read_counted(args),
            [
                path
                for paths in (*args.fragment_tables.values(), *args.segment_tables.values())
                for path in paths
            ],
            opened,
        )
        if args.verb == "choose":
            choose(args.settings, inputs, args.output)
        else:
            score_all(args.settings, inputs, args.threshold_file, args.output, args.plot)


if __name__ == "__main__":
    run(main)
