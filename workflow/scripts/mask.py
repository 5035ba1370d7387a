"""Writes the labels mask of one volume: 1 where labels are known, 0 on background ids."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.mask_model import MaskSettings
from retrace.config.schema import check
from retrace.errors import run
from retrace.formats.placement import check_place_in_image
from retrace.storage.images import open_image
from retrace.storage.labels_mask import write_mask
from retrace.storage.manifest import write_manifest
from retrace.storage.reads import local_paths, remote_reads
from retrace.storage.volumes import open_source
from retrace.storage.zarr_writer import writing


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser)
    parser.add_argument("--output", required=True, type=Path, help="the zarr store to make")
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the mask of one volume and its manifest."""
    begin = time.monotonic()
    args = parse_args(argv)
    settings = check(MaskSettings, args.settings, "--settings")
    labels = open_source(settings.labels)
    if settings.image is not None:
        check_place_in_image(labels.place, open_image(settings.image).place)
    own_mask = open_source(settings.labels_mask) if settings.labels_mask else None
    if own_mask is not None:
        check_place_in_image(own_mask.place, labels.place)
    with writing(args.output) as partial:
        counts = write_mask(
            labels,
            settings.background_ids,
            partial,
            own_mask=own_mask,
            zarr_format=settings.zarr_format,
        )
    sources = [settings.labels, *([settings.labels_mask] if settings.labels_mask else [])]
    write_manifest(
        args.output,
        inputs=local_paths(sources),
        settings=args.settings,
        seconds=time.monotonic() - begin,
        extra={"counts": asdict(counts)},
        read=remote_reads(labels, own_mask),
    )
    percent = 100 * counts.inside / counts.voxels
    print(
        f"[mask] {args.output}: {counts.inside} of {counts.voxels} voxels inside ({percent:.1f} %)"
    )


if __name__ == "__main__":
    run(main)
