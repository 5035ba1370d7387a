"""Writes a volume with all its mips, chunk by chunk: for neuroglancer, or as an OME-Zarr image.

    export.py --settings JSON --work FOLDER --output FOLDER/segments
    export.py --settings JSON --work FOLDER --output FOLDER/segments.zarr

The settings are one JSON object: `format` (precomputed or ome_zarr), `source` (path, array,
mip ...), `within` (another volume to whose box the layer is cut, or null), `labels` (whether it
holds ids) and, of precomputed layers, `gzip`.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.command_line import add_job, parse_job
from retrace.errors import DataError, run
from retrace.files import digest
from retrace.geometry import VoxelBox
from retrace.remote.addresses import is_address
from retrace.storage.manifest import (
    check_manifest,
    input_digest,
    manifest_path,
    store_with_manifest,
    write_manifest,
)
from retrace.storage.ome_zarr_writer import OmeZarrWriter, shifted_to_origin
from retrace.storage.precomputed_writer import LayerPlan, LayerWriter, plan_layer
from retrace.storage.reads import local_paths, remote_reads, same_version
from retrace.storage.volumes import Volume, open_source
from retrace.storage.zarr_writer import publish

THREADS = 4


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser)
    parser.add_argument("--work", required=True, type=Path, help="folder that survives a kill")
    parser.add_argument("--output", required=True, type=Path, help="the layer's folder")
    parser.add_argument("--threads", type=int, default=THREADS)
    return parse_job(parser, argv)


def open_checked(source: Mapping[str, Any]) -> Volume:
    """A source, compared with its manifest where it has one."""
    if not is_address(source["path"]) and store_with_manifest(Path(source["path"])):
        check_manifest(Path(source["path"]))
    return open_source(source)


def exported_box(volume: Volume, within: Mapping[str, Any] | None) -> VoxelBox:
    """What is written: all of the volume, or what it has in common with another one."""
    if within is None:
        return volume.box
    other = open_checked(within)
    box = other.box.to_nm(other.voxel_size_nm).to_voxels(volume.voxel_size_nm)
    if (common := box.intersect(volume.box)).is_empty:
        raise DataError(f"{volume.name} and {other.name} have no place in common")
    return common


def work_folder(
    arguments: argparse.Namespace, volume: Volume, box: VoxelBox, plan: LayerPlan
) -> Path:
    """Scratch of exactly this layer: another source or other settings get another folder."""
    source = arguments.settings["source"]
    identity = {
        "info": plan.info(),
        "format": arguments.settings["format"],
        "box": [list(box.offset), list(box.shape)],
        "gzip": plan.gzip,
        "source": [input_digest(path) for path in local_paths([source])],
        "edition": volume.reader.record.version if volume.reader else None,
        "output": str(arguments.output.resolve()),
    }
    return Path(arguments.work) / digest(identity)


def planned(
    arguments: argparse.Namespace, volume: Volume, box: VoxelBox
) -> tuple[Callable[[Path, Path], None], LayerPlan, Path]:
    """What writes the layer into a folder, noting in another; its plan; and its scratch."""
    settings, output = arguments.settings, arguments.output
    if settings["format"] == "precomputed":
        plan = plan_layer(volume, box, labels=settings["labels"], compress=settings["gzip"])

        def write(folder: Path, work: Path) -> None:
            LayerWriter(folder, work, plan).write(volume, arguments.threads)

    else:
        moved, plan, begin = shifted_to_origin(volume, box, labels=settings["labels"])

        def write(folder: Path, work: Path) -> None:
            writer = OmeZarrWriter(folder, work, plan, name=output.stem, offset_nm=begin)
            writer.write(moved, arguments.threads)

    return write, plan, work_folder(arguments, volume, box, plan)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    begin = time.monotonic()
    arguments = parse_arguments(argv)
    settings, output = arguments.settings, arguments.output
    volume = open_checked(settings["source"])
    box = exported_box(volume, settings["within"])
    write, plan, work = planned(arguments, volume, box)
    partial = output.with_name(output.name + ".partial")
    if not work.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    with same_version(work, volume):
        write(partial, work)
    manifest_path(output).unlink(missing_ok=True)
    publish(partial, output)
    write_manifest(
        output,
        inputs=local_paths([settings["source"]]),
        settings=settings,
        seconds=time.monotonic() - begin,
        read=remote_reads(volume),
    )
    shutil.rmtree(work, ignore_errors=True)
    print(f"[export] {output}: {len(plan.mips)} mips of {list(box.shape)} voxels", flush=True)


if __name__ == "__main__":
    run(main)
