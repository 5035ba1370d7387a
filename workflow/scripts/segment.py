"""Affinities -> fragments and region graph -> segments at a threshold.

On one machine, `fragments` does the first step and `apply` the second. In shards, each step is a
job of its own: `fragments --shard`, `edges --shard`, `join` (the only step that sees the whole
volume, of which it reads the region graph alone), `apply --shard`; assemble.py joins the shards
after each step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import run
from retrace.segmentation.jobs import (
    BlockJob,
    write_edges,
    write_fragments,
    write_lookup_table,
    write_segmentation,
)
from retrace.storage.shards import SINGLE_SHARD, parse_shard


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fragments = commands.add_parser("fragments", help="watershed and agglomeration, or mutex")
    edges = commands.add_parser("edges", help="the region graph of the blocks of a shard")
    edges.add_argument("--fragments", required=True, type=Path, help="those of all shards")
    for command in (fragments, edges):
        command.add_argument("--settings", required=True, type=json.loads)
        command.add_argument("--prediction", required=True, type=Path, help="prediction.zarr")
        command.add_argument(
            "--work", required=True, type=Path, help="scratch folder, kept to resume"
        )
    join = commands.add_parser("join", help="the segment of every fragment")
    apply = commands.add_parser("apply", help="segments at the threshold of the validation volumes")
    apply.add_argument("--lut", type=Path, help="of `join`; else joined here")
    for command in (join, apply):
        command.add_argument("--fragments", required=True, type=Path)
        command.add_argument("--threshold-file", required=True, type=Path)
    for command in (fragments, edges, apply):
        command.add_argument("--shard", type=parse_shard, default=SINGLE_SHARD, metavar="1-of-8")
    for command in (fragments, edges, join, apply):
        command.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def block_job(args: argparse.Namespace, fragments: Path | None = None) -> BlockJob:
    """The job of `fragments` or `edges`."""
    return BlockJob(args.settings, args.prediction, args.work, args.output, args.shard, fragments)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one step; `argv` without the program's name."""
    args = parse_arguments(argv)
    if args.command == "fragments":
        write_fragments(block_job(args))
    elif args.command == "edges":
        write_edges(block_job(args, args.fragments))
    elif args.command == "join":
        write_lookup_table(args.fragments, args.threshold_file, args.output)
    else:
        write_segmentation(args.fragments, args.threshold_file, args.output, args.lut, args.shard)


if __name__ == "__main__":
    run(main)
