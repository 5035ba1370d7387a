"""Stacks of serial sections to train alignment on: make sections, sample stacks, combine files.

stacks.py make --settings JSON --layer FOLDER --truth STORE     sections distorted in a known way
stacks.py gen_stack --settings JSON --output FILE.h5            stacks sampled from a layer
stacks.py combine_h5 OUTPUT.h5 A.h5 B.h5 ...                    several files as one
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrace.alignment.stack_sampling import (
    DEFECTS,
    DISPLACEMENT,
    AtLeast,
    Sample,
    Sampler,
    Sources,
    read_coordinates,
    write_coordinates,
)
from retrace.alignment.stack_writer import combine, kept, write_stacks
from retrace.config.alignment import GEOMETRY
from retrace.errors import ConfigError, run
from retrace.files import digest
from retrace.geometry import NmBox, Triple, triple
from retrace.storage.manifest import manifest_path, write_manifest
from retrace.storage.reads import local_paths, remote_reads, same_version, volume_version
from retrace.storage.volumes import Volume, open_source, open_volume
from retrace.synthetic.distorted_layer import generated_sections, write_distorted_layer
from retrace.synthetic.distorted_sections import Distortion


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="sections distorted in a known way, as a layer")
    make.add_argument("--settings", required=True, type=as_json, help="JSON: made, seed, raw")
    make.add_argument("--layer", required=True, type=Path, help="folder of the precomputed layer")
    make.add_argument("--truth", required=True, type=Path, help="zarr of what is known of them")
    draw = verbs.add_parser("gen_stack", help="stacks sampled from a layer of sections")
    draw.add_argument(
        "--settings", required=True, type=as_json, help="JSON: name, split, seed, source, stacks …"
    )
    draw.add_argument("--truth", type=Path, help="zarr of known displacements of the sections")
    draw.add_argument("--work", type=Path, help="folder of what an interrupted run goes on from")
    draw.add_argument("--output", required=True, type=Path, help="the .h5 or .zarr to make")
    join = verbs.add_parser("combine_h5", help="all data sets of several files in one")
    join.add_argument("output", type=Path)
    join.add_argument("sources", type=Path, nargs="+")
    return parser.parse_args(argv)


def as_json(text: str) -> dict[str, Any]:
    """The value of --settings; ConfigError where it is no JSON."""
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--settings is not JSON ({error})") from error
    return found


def open_sources(settings: Mapping[str, Any], truth: Path | None) -> Sources:
    """What stacks are read from."""
    mask = settings["mask"]
    bad = None if mask is None else open_source(mask)
    if bad is not None:
        bad = replace(bad, array=AtLeast(bad.array, mask["defect_from"]))
    known = {} if truth is None else {a: open_volume(truth, a) for a in (DISPLACEMENT, DEFECTS)}
    return Sources(
        open_source(settings["source"]),
        bad,
        known.get(DISPLACEMENT),
        known.get(DEFECTS),
        settings["near_px"],
    )


def finest_nm(settings: Mapping[str, Any]) -> Triple:
    """The voxel size of mip 0, which SEAMLeSS's coordinates count."""
    return open_source({**settings["source"], "mip": 0}).voxel_size_nm


def gen_stack(args: argparse.Namespace) -> None:
    begin = time.monotonic()
    settings = args.settings
    sources = open_sources(settings, args.truth)
    stacks = settings["stacks"]
    sampler = Sampler(sources, stacks, settings["split"], settings["seed"])
    corners = given_corners(settings, sampler)
    count = len(corners) or stacks["test_count" if settings["split"] == "test" else "count"]
    work = work_folder(args, sources.sections)
    places: list[Triple] = []

    def draw(number: int) -> Sample:
        return sampler.read_at(corners[number]) if corners else sampler.draw(number)

    def samples() -> Iterator[Sample]:
        for number in range(count):
            sample = kept(work, number, draw)
            places.append(sample.corner_nm)
            yield sample

    size = sources.sections.voxel_size_nm
    attrs = {"mip": settings["source"]["mip"], "resolution": list(size)}
    with same_version(work, sources.sections, sources.bad):
        write_stacks(args.output, settings["name"], samples(), count, attrs)
    shape_nm = triple([n * v for n, v in zip(sampler.shape, size, strict=True)])
    write_coordinates(coordinates_path(args.output), places, shape_nm)
    finish(args, sources, begin, count)
    shutil.rmtree(work, ignore_errors=True)


def given_corners(settings: Mapping[str, Any], sampler: Sampler) -> list[Triple]:
    """The corners that a file of coordinates names, for training; nothing without one."""
    path = settings["stacks"]["coordinates"]
    if path is None or settings["split"] == "test":
        return []
    size = sampler.sources.sections.voxel_size_nm
    return read_coordinates(Path(path), size, sampler.shape, finest_nm(settings))


def coordinates_path(output: Path) -> Path:
    """`x/main_train.h5` -> `x/main_train.coordinates.json`."""
    return output.with_name(f"{output.stem}.coordinates.json")


def work_folder(args: argparse.Namespace, sections: Volume) -> Path:
    """Where finished stacks are kept until the file is: another volume, another folder."""
    version = volume_version(sections, args.settings["source"]["path"]) if args.work else 0
    base: Path = args.work or args.output.with_name(f".{args.output.name}.work")
    told = digest({"settings": args.settings, "version": version})
    return base.with_name(f"{base.name}_{told}")


def finish(args: argparse.Namespace, sources: Sources, begin: float, count: int) -> None:
    """The manifest, last."""
    manifest_path(args.output).unlink(missing_ok=True)
    mask = args.settings["mask"]
    given = [args.settings["source"], *([mask] if mask else [])]
    inputs = [*local_paths(given), *([args.truth] if args.truth else [])]
    write_manifest(
        args.output,
        inputs=inputs,
        settings=args.settings,
        seconds=time.monotonic() - begin,
        extra={"stacks": count},
        read=remote_reads(sources.sections, sources.bad),
    )
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
    made, seed = settings["made"], settings["seed"]
    distortion = Distortion(**{key: made[key] for key in GEOMETRY})
    if raw is None and made["phantom_shape"] is None:
        raise ConfigError(
            "sections to distort are neither generated nor read from a volume; set "
            "`phantom_shape`, or name a volume"
        )
    sections = raw or generated_sections(
        made["phantom_shape"], settings["voxel_size_nm"], seed, distortion
    )
    roi = made["roi_nm"]
    box = None if roi is None else NmBox(triple(roi["offset"]), triple(roi["shape"]))
    write_distorted_layer(sections, box, distortion, seed, layer=layer, ground_truth=ground_truth)


def make(args: argparse.Namespace) -> None:
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


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.verb == "make":
        make(args)
    elif args.verb == "gen_stack":
        gen_stack(args)
    else:
        found = combine(args.output, args.sources)
        told = ", ".join(f"{name} ({count})" for name, count in found.items())
        print(f"[combine_h5] {args.output}: {told}", flush=True)


if __name__ == "__main__":
    run(main)
