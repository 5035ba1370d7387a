"""Predicts a volume with a trained network, tile by tile; an interrupted job resumes."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.device import keep_freed_memory
from retrace.errors import run
from retrace.inference.build import build_prediction, input_files
from retrace.storage.shards import SINGLE_SHARD, parse_shard


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads)
    parser.add_argument("--model", required=True, type=Path, help="model.safetensors")
    parser.add_argument("--work", required=True, type=Path, help="scratch folder, kept to resume")
    parser.add_argument("--output", required=True, type=Path, help="prediction.zarr")
    parser.add_argument("--shard", type=parse_shard, default=SINGLE_SHARD, metavar="1-of-8")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes `prediction.zarr` and its manifest, the manifest last."""
    begun = time.monotonic()
    args = parse_arguments(argv)
    keep_freed_memory()
    prediction = build_prediction(args.settings, args.model, args.work, args.output, args.shard)
    prediction.run()
    files = input_files(args.settings, args.model)
    prediction.publish(args.output, files, args.settings, time.monotonic() - begun)


if __name__ == "__main__":
    run(main)
