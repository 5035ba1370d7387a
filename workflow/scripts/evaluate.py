"""Scores segmentations: chooses a threshold on validation volumes, scores test volumes.

    evaluate.py count   --settings JSON --store F.zarr --shard 1-of-8 --output tables.npz
    evaluate.py learn   --settings JSON --fragments V=F.zarr ... --output classifier.safetensors
    evaluate.py choose  --settings JSON --fragments V=F.zarr ... --output threshold.json
    evaluate.py score   --settings JSON --fragments V=F.zarr ... --segmentation V=S.zarr ...
                        --threshold-file threshold.json --output evaluation.json --plot PNG
    evaluate.py compare --labels FILE:ARRAY --segmentation NAME=FILE:ARRAY ... [--roi-nm z0:z1,...]
    evaluate.py nodes   --settings JSON --fragments F.zarr --threshold-file JSON --output nodes
    evaluate.py rescore nodes/skeletons.npz [--segmentation NAME=FILE:ARRAY] [--csv NAME=FILE]

The settings are one JSON object: `dataset` (name, background_ids, volumes, validation, test),
`thresholds` [lowest, highest, step], for `score` also `untrained`, `merge_threshold` and
`compute_mincut`, for `count` and `nodes` also `volume`, and for `count` also `split` and `array`.
The ground truth of an entry are the labels of its volume, or without labels its skeletons. `choose`
and `score` count voxels themselves, or add up what `count` counted in shards (--fragment-tables and
--segment-tables V=tables.npz ...). `nodes` writes tables of the segments at skeleton nodes, and
`rescore` scores such tables again. `compare` scores any segmentations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrace.command_line import (
    add_job,
    as_number,
    named_paths,
    named_texts,
    output_file,
    parse_job,
)
from retrace.config.schema import check
from retrace.errors import run
from retrace.evaluation.any_segmentation import (
    common_region,
    named_arrays,
    open_named_array,
    rescore,
    score_volumes,
)
from retrace.evaluation.coverage import mask_warning, partial_warning, place_warning
from retrace.evaluation.edge_labels import write_classifier
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.inputs import ScoringInputs, read_counted
from retrace.evaluation.jobs import write_counts, write_node_tables, write_scores, write_threshold
from retrace.evaluation.plots import scores_table
from retrace.evaluation.scores import CONVENTION
from retrace.files import write_json
from retrace.geometry import NmBox, NmTriple, checked_voxel_size
from retrace.planning.score_settings import (
    CountSettings,
    LearningSettings,
    NodeSettings,
    ScoreSettings,
    ThresholdSettings,
)
from retrace.storage.shards import shard_of
from retrace.storage.volumes import recording_opened

WHERE = "settings of the evaluation"
"""What error messages call the settings of a job."""


def _parse_roi(text: str) -> NmBox:
    """z0:z1,y0:y1,x0:x1 as a box, nm."""
    try:
        ends = [[as_number(value) for value in axis.split(":")] for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ends
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not z0:z1,y0:y1,x0:x1 (nm)") from error
    if z1 <= z0 or y1 <= y0 or x1 <= x0:
        raise argparse.ArgumentTypeError(f"{text!r} is empty; each end must be above its begin")
    return NmBox((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))


def _parse_voxel_size(text: str) -> NmTriple:
    """z,y,x as a voxel size, nm."""
    try:
        values = [as_number(value) for value in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not z,y,x (nm)") from error
    return checked_voxel_size(values)


def _add_store_options(parser: argparse.ArgumentParser, file: Sequence[str] = ()) -> None:
    add_job(
        parser,
        file=file,
        optional_file=["classifier"],
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
    _add_store_options(verbs.add_parser("learn", help="train the classifier of edges"))
    _add_store_options(verbs.add_parser("choose", help="choose the threshold on validation"))
    scoring = verbs.add_parser("score", help="score the test volumes at the chosen threshold")
    _add_store_options(scoring, ["threshold_file"])
    scoring.add_argument("--plot", type=Path)
    help_text = "errors.json; errors.csv and errors_layer.json are written next to it"
    scoring.add_argument("--errors", type=Path, metavar="JSON", help=help_text)
    counting = verbs.add_parser("count", help="count the voxels of one shard of a volume")
    add_job(counting, file=["store"], files_by_name=["masks"], has_shard=True)
    counting.add_argument("--threads", type=int, default=1)
    counting.add_argument("--output", required=True, type=Path, help="npz")
    comparing = verbs.add_parser("compare", help="score any segmentations against labels")
    comparing.add_argument("--labels", required=True, metavar="FILE:ARRAY")
    comparing.add_argument("--segmentation", required=True, nargs="+", metavar="NAME=FILE:ARRAY")
    comparing.add_argument("--mask", metavar="FILE:ARRAY", help="voxels of 0 do not count")
    comparing.add_argument("--roi-nm", type=_parse_roi, metavar="z0:z1,y0:y1,x0:x1")
    comparing.add_argument("--voxel-size-nm", type=_parse_voxel_size, metavar="z,y,x")
    comparing.add_argument("--background-id", type=int, action="append", default=[])
    comparing.add_argument("--fill-unassigned", action="store_true", help="grow into voxels of 0")
    comparing.add_argument(
        "--missing-chunks",
        choices=("refuse", "fill"),
        default="refuse",
        help="fill: chunks that do not exist read as the fill value",
    )
    comparing.add_argument("--threads", type=int, default=1)
    comparing.add_argument("--output", type=output_file, help="JSON")
    _add_node_verbs(verbs)
    return parse_job(parser, argv)


def _add_node_verbs(verbs: Any) -> None:
    writing = verbs.add_parser("nodes", help="write the segments at skeleton nodes")
    add_job(writing, file=["fragments", "threshold_file"], optional_file=["classifier"])
    writing.add_argument("--output", required=True, type=Path, help="folder")
    scoring = verbs.add_parser("rescore", help="score a table of nodes")
    scoring.add_argument("table", type=Path, metavar="NODES.npz")
    scoring.add_argument("--threshold", type=float, help="one of the table's; else the chosen one")
    for name, source in (("segmentation", "FILE:ARRAY"), ("csv", "FILE")):
        help_text = "another segmentation of the same nodes"
        scoring.add_argument(
            f"--{name}", nargs="+", default=[], metavar=f"NAME={source}", help=help_text
        )
    scoring.add_argument("--merge-threshold", type=int, default=1, help="nodes that make a merger")
    scoring.add_argument("--output", type=output_file, help="JSON")


def run_compare(args: argparse.Namespace) -> None:
    """Scores segmentations on the same voxels, prints a table, and writes JSON if asked to."""
    open_array = partial(
        open_named_array, voxel_size_nm=args.voxel_size_nm, missing_chunks=args.missing_chunks
    )
    ground_truth = GroundTruth(
        open_array(args.labels),
        open_array(args.mask) if args.mask else None,
        args.roi_nm,
        tuple(args.background_id),
    )
    sources = named_arrays(args.segmentation)
    volumes = {name: open_array(source) for name, source in sources.items()}
    masks = [] if ground_truth.mask is None else [ground_truth.mask]
    _warn(place_warning(ground_truth.labels, [*volumes.values(), *masks]))
    for mask in masks:
        _warn(mask_warning(mask, ground_truth.box_nm))
    rows = score_volumes(volumes, ground_truth, grow=args.fill_unassigned, threads=args.threads)
    print(scores_table(rows), flush=True)
    _warn(partial_warning(rows, common_region(volumes.values(), ground_truth)))
    if args.output:
        write_json(args.output, {"convention": CONVENTION, "segmentations": rows})


def _warn(warning: str | None) -> None:
    if warning is not None:
        print(warning, file=sys.stderr, flush=True)


def run_rescore(args: argparse.Namespace) -> None:
    """Scores a table of nodes, prints the scores, and writes JSON if asked to."""
    segmentations, csv_files = named_texts(args.segmentation), named_paths(args.csv)
    rows = rescore(args.table, args.threshold, segmentations, csv_files, args.merge_threshold)
    for name, scores in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in scores.items()))
        if scores.get("nodes_covered", scores["nodes"]) < scores["nodes"]:
            print(
                f"warning: {name} covers only {scores['nodes_covered']} of {scores['nodes']} "
                "nodes; the others count as segment 0",
                file=sys.stderr,
            )
    if args.output:
        write_json(args.output, {"convention": CONVENTION, "tables": rows})


def run_scoring(args: argparse.Namespace) -> None:
    """Learns edges, chooses the threshold, or scores the test entries at it."""
    tables = [*args.fragment_tables.values(), *args.segment_tables.values()]
    with recording_opened() as opened:
        inputs = ScoringInputs(
            args.fragments,
            args.masks,
            args.segmentation,
            args.threads,
            read_counted(tables),
            [path for paths in tables for path in paths],
            args.classifier,
            opened,
        )
        if args.verb == "learn":
            write_classifier(check(LearningSettings, args.settings, WHERE), inputs, args.output)
        elif args.verb == "choose":
            write_threshold(check(ThresholdSettings, args.settings, WHERE), inputs, args.output)
        else:
            settings = check(ScoreSettings, args.settings, WHERE)
            write_scores(settings, inputs, args.threshold_file, args.output, args.plot, args.errors)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one verb; `argv` without the program's name."""
    args = parse_args(argv)
    if args.verb == "compare":
        run_compare(args)
    elif args.verb == "rescore":
        run_rescore(args)
    elif args.verb == "nodes":
        node_settings = check(NodeSettings, args.settings, WHERE)
        files = args.fragments, args.threshold_file, args.output, args.classifier
        write_node_tables(node_settings, *files)
    elif args.verb == "count":
        shard = shard_of(args.execution)
        count_settings = check(CountSettings, args.settings, WHERE)
        write_counts(count_settings, args.store, args.masks, args.output, args.threads, shard)
    else:
        run_scoring(args)


if __name__ == "__main__":
    run(main)
