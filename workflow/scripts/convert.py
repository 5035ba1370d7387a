"""Converts a published TensorFlow checkpoint to model.safetensors, without TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.checkpoints.published import load_published, read_published
from retrace.checkpoints.safetensors import save_model
from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import run
from retrace.networks import build_network
from retrace.planning.conversion_settings import ConversionSettings
from retrace.storage.manifest import input_digest


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser, file=["checkpoint"])
    parser.add_argument("--output", required=True, type=Path, help="model.safetensors")
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Converts the latest checkpoint in the folder."""
    args = parse_args(argv)
    settings = check(ConversionSettings, args.settings, "--settings")
    network = settings.network
    checkpoint = read_published(args.checkpoint)
    module = build_network(network)
    load_published(checkpoint, module, network.name)
    name = checkpoint.source.name
    metadata = {
        "network": network.plain(),
        "dataset": settings.dataset,
        "iteration": checkpoint.iteration,
        "source": {"checkpoint": name, "digest": input_digest(args.checkpoint)},
    }
    save_model(args.output, module, metadata)
    count = sum(parameter.numel() for parameter in module.parameters())
    print(f"[convert] {name}: {count} parameters -> {args.output}", flush=True)


if __name__ == "__main__":
    run(main)
