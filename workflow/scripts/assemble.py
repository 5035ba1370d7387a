"""Assembles the shards of a store into one store, whose chunks are hard links to theirs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.errors import run
from retrace.storage.assemble import assemble, check_shards, merge_remote_reads
from retrace.storage.manifest import write_manifest
from retrace.storage.zarr_writer import writing


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser, file_list=["shards"], has_settings=False)
    parser.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Assembles one store and writes its manifest."""
    arguments = parse_args(argv)
    begin = time.monotonic()
    check_shards(arguments.shards)
    read = merge_remote_reads(arguments.shards)
    with writing(arguments.output) as partial:
        shards_per_array = assemble(arguments.shards, partial)
    write_manifest(
        arguments.output,
        inputs=arguments.shards,
        settings={},
        seconds=time.monotonic() - begin,
        extra={"shares": shards_per_array},
        read=read,
    )


if __name__ == "__main__":
    run(main)
