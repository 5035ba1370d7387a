"""Stacks of serial sections to train alignment on: make sections, sample stacks, combine files.

stacks.py make --settings JSON --layer FOLDER --truth STORE     sections with known distortions
stacks.py gen_stack --settings JSON --output FILE.h5            stacks sampled from a layer
stacks.py combine_h5 OUTPUT.h5 A.h5 B.h5 ...                    several files as one
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.alignment.stack_sets import write_stack_set
from retrace.alignment.stack_writer import combine_stack_files
from retrace.command_line import add_job, parse_job
from retrace.config.alignment import GEOMETRY
from retrace.errors import ConfigError, run
from retrace.geometry import NmBox, triple
from retrace.storage.manifest import manifest_path, write_manifest
from retrace.storage.reads import local_paths, remote_reads
from retrace.storage.volumes import Volume, open_source
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
    count = write_stack_set(args.settings, args.truth, args.work, args.output)
    stacks = args.settings["stacks"]
    print(
        f"[gen_stack] {args.output}: {count} stacks of {stacks['height']} sections, "
        f"{stacks['side']} x {stacks['side']} px",
        flush=True,
    )


def distort_sections_of(
    raw: Volume | None, settings: Mapping[str, Any], layer: Path, ground_truth: Path
) -> None:
    """Writes distorted sections and their ground truth; without `raw`, of generated neurites."""
    geometry, seed = settings["made"], settings["seed"]
    distortion = Distortion(**{key: geometry[key] for key in GEOMETRY})
    if raw is None and geometry["phantom_shape"] is None:
        raise ConfigError(
            "sections to distort are neither generated nor read from a volume; set "
            "`phantom_shape`, or name a volume"
        )
    sections = raw or generated_sections(
        geometry["phantom_shape"], settings["voxel_size_nm"], seed, distortion
    )
    roi = geometry["roi_nm"]
    box = None if roi is None else NmBox(triple(roi["offset"]), triple(roi["shape"]))
    write_distorted_layer(sections, box, distortion, seed, layer=layer, ground_truth=ground_truth)


def make_sections(args: argparse.Namespace) -> None:
    """Writes a layer of distorted sections and the store of their ground truth."""
    begin = time.monotonic()
    settings = args.settings
    raw = open_source(settings["raw"]) if settings["raw"] else None
    distort_sections_of(raw, settings, args.layer, args.truth)
    for store in (args.layer, args.truth):
        manifest_path(store).unlink(missing_ok=True)
        write_manifest(
            store,
            inputs=local_paths([settings["raw"]]) if raw else [],
            settings=settings,
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
