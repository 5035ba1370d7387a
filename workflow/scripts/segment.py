"""Affinities -> fragments and region graph -> segments at a threshold.

On one machine, `fragments` does the first step and `apply` the second. In shards, each step is a
separate job: `fragments`, `edges`, `join` (the only step over the whole volume; it reads
only the region graph), `apply`; assemble.py joins the shards after each step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.errors import run
from retrace.planning.segment_settings import read_segmentation_settings
from retrace.segmentation.jobs import (
    BlockJob,
    write_edges,
    write_fragments,
    write_lookup_table,
    write_segmentation,
)
from retrace.storage.shards import shard_of


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fragments = commands.add_parser("fragments", help="watershed and agglomeration, or mutex")
    edges = commands.add_parser("edges", help="the region graph of the blocks of a shard")
    add_job(fragments, file=["prediction"], has_shard=True)
    add_job(edges, file=["prediction", "fragments"], has_shard=True)
    for command in (fragments, edges):
        command.add_argument(
            "--work", required=True, type=Path, help="scratch folder, kept to resume"
        )
    join = commands.add_parser("join", help="the segment of every fragment")
    apply = commands.add_parser("apply", help="segments at the threshold of the validation volumes")
    graph = ["fragments", "threshold_file"]
    add_job(join, file=graph, optional_file=["classifier"], has_settings=False)
    files = ["lut", "classifier"]
    add_job(apply, file=graph, optional_file=files, has_settings=False, has_shard=True)
    for command in (fragments, edges, join, apply):
        command.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def block_job(args: argparse.Namespace, fragments: Path | None = None) -> BlockJob:
    """The job of `fragments` or `edges`."""
    settings, shard = read_segmentation_settings(args.settings), shard_of(args.execution)
    return BlockJob(settings, args.prediction, args.work, args.output, shard, fragments)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one step; `argv` without the program's name."""
    args = parse_args(argv)
    if args.command == "fragments":
        write_fragments(block_job(args))
    elif args.command == "edges":
        write_edges(block_job(args, args.fragments))
    elif args.command == "join":
        write_lookup_table(args.fragments, args.threshold_file, args.output, args.classifier)
    else:
        shard = shard_of(args.execution)
        files = args.fragments, args.threshold_file, args.output, args.lut
        write_segmentation(*files, shard, args.classifier)


if __name__ == "__main__":
    run(main)
