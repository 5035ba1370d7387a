"""Predicts a volume with a trained network, tile by tile; an interrupted job resumes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.device import keep_freed_memory
from retrace.errors import run
from retrace.inference.build import build_prediction, input_files
from retrace.planning.predict_settings import read_prediction_settings
from retrace.storage.shards import shard_of


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser, file=["model"], has_shard=True)
    parser.add_argument("--work", required=True, type=Path, help="scratch folder, kept to resume")
    parser.add_argument("--output", required=True, type=Path, help="prediction.zarr")
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes `prediction.zarr` and its manifest, the manifest last."""
    begun = time.monotonic()
    args = parse_args(argv)
    keep_freed_memory()
    shard = shard_of(args.execution)
    settings = read_prediction_settings(args.settings)
    prediction = build_prediction(settings, args.model, args.work, args.output, shard)
    prediction.run()
    files = input_files(settings, args.model)
    prediction.publish(args.output, files, settings, time.monotonic() - begun)


if __name__ == "__main__":
    run(main)
