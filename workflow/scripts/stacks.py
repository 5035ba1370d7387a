"""Stacks of serial sections to train alignment on: make sections, sample stacks, combine files.

stacks.py make --settings JSON --layer FOLDER --truth STORE     sections with known distortions
stacks.py gen_stack --settings JSON --output FILE.h5            stacks sampled from a layer
stacks.py combine_h5 OUTPUT.h5 A.h5 B.h5 ...                    several files as one
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.alignment.stack_sets import write_stack_set
from retrace.alignment.stack_writer import combine_stack_files
from retrace.command_line import add_job, parse_job
from retrace.config.alignment import GEOMETRY
from retrace.config.schema import check
from retrace.errors import ConfigError, run
from retrace.geometry import NmBox
from retrace.planning.stack_settings import DistortSettings, SampleSettings
from retrace.storage.images import open_image
from retrace.storage.manifest import write_manifest
from retrace.storage.reads import local_paths, remote_reads
from retrace.storage.volumes import Volume
from retrace.synthetic.distorted_layer import generated_sections, write_distorted_layer
from retrace.synthetic.distorted_sections import Distortion


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="sections with known distortions, as a layer")
    add_job(make)
    make.add_argument("--layer", required=True, type=Path, help="folder of the precomputed layer")
    make.add_argument("--truth", required=True, type=Path, help="zarr of their ground truth")
    draw = verbs.add_parser("gen_stack", help="stacks sampled from a layer of sections")
    add_job(draw, optional_file=["truth"])
    draw.add_argument("--work", type=Path, help="folder where an interrupted run resumes")
    draw.add_argument("--output", required=True, type=Path, help="the .h5 or .zarr to make")
    join = verbs.add_parser("combine_h5", help="all data sets of several files in one")
    join.add_argument("output", type=Path)
    join.add_argument("sources", type=Path, nargs="+")
    return parse_job(parser, argv)


def sample_stacks(args: argparse.Namespace) -> None:
    """Writes a file of training stacks."""
    settings = check(SampleSettings, args.settings, "settings of stacks.py gen_stack")
    count = write_stack_set(settings, args.truth, args.work, args.output)
    side = settings.stacks.side
    print(
        f"[gen_stack] {args.output}: {count} stacks of {settings.stacks.height} sections, "
        f"{side} x {side} px",
        flush=True,
    )


def distort_sections_of(
    raw: Volume | None, settings: DistortSettings, layer: Path, ground_truth: Path
) -> None:
    """Writes distorted sections and their ground truth; without `raw`, of generated neurites."""
    distortions, seed = settings.made, settings.seed
    distortion = Distortion(**{name: getattr(distortions, name) for name in GEOMETRY})
    if raw is not None:
        sections = raw
    elif distortions.phantom_shape is not None:
        sections = generated_sections(
            distortions.phantom_shape, settings.voxel_size_nm, seed, distortion
        )
    else:
        raise ConfigError(
            "sections to distort are neither generated nor read from a volume; set "
            "`phantom_shape`, or name a volume"
        )
    box = (
        None
        if distortions.roi_nm is None
        else NmBox(distortions.roi_nm.offset, distortions.roi_nm.shape)
    )
    write_distorted_layer(sections, box, distortion, seed, layer=layer, ground_truth=ground_truth)


def make_sections(args: argparse.Namespace) -> None:
    """Writes a layer of distorted sections and the store of their ground truth."""
    begin = time.monotonic()
    settings = check(DistortSettings, args.settings, "settings of stacks.py make")
    raw = None if settings.raw is None else open_image(settings.raw)
    distort_sections_of(raw, settings, args.layer, args.truth)
    for store in (args.layer, args.truth):
        write_manifest(
            store,
            inputs=[] if settings.raw is None else local_paths([settings.raw]),
            settings=settings.plain(),
            seconds=time.monotonic() - begin,
            read=remote_reads(raw),
        )


def combine_files(args: argparse.Namespace) -> None:
    """Copies the data sets of several files into one."""
    counts = combine_stack_files(args.output, args.sources)
    names = ", ".join(f"{name} ({count})" for name, count in counts.items())
    print(f"[combine_h5] {args.output}: {names}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    verbs = {"make": make_sections, "gen_stack": sample_stacks, "combine_h5": combine_files}
    verbs[args.verb](args)


if __name__ == "__main__":
    run(main)
