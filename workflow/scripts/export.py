"""Writes a volume with all its mips, chunk by chunk, for neuroglancer or as an OME-Zarr image.

    export.py --settings JSON --work FOLDER --output FOLDER/segments
    export.py --settings JSON --work FOLDER --output FOLDER/segments.zarr

The settings are one JSON object: `format` (precomputed or ome_zarr), `source` (path, array,
mip ...), `within` (another volume to whose box the layer is cropped, or null), `labels` (whether
values are ids) and, for precomputed layers, `gzip` and `shapes` (meshes and skeletons).
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.export_model import ExportSettings
from retrace.config.schema import check
from retrace.errors import DataError, run
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.records.record import running_job, work_digest
from retrace.relative_paths import relative_path
from retrace.remote.addresses import is_address
from retrace.replacement import remove_afterwards
from retrace.storage.images import open_image
from retrace.storage.layer_formats import LAYER_FORMATS, ExportedLayer, Plan
from retrace.storage.manifest import (
    check_manifest,
    input_digest,
    store_with_manifest,
    write_manifest,
)
from retrace.storage.owned_files import check_replaceable
from retrace.storage.precomputed_writer import LayerPlan
from retrace.storage.reads import local_paths, remote_reads, same_version
from retrace.storage.volumes import Volume, open_source
from retrace.storage.zarr_writer import publish
from retrace.viewing.links import PORT, layer_link

THREADS = 4


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser)
    help_text = "folder that keeps the progress, from which an interrupted export resumes"
    parser.add_argument("--work", required=True, type=Path, help=help_text)
    parser.add_argument("--output", required=True, type=Path, help="the layer's folder")
    parser.add_argument("--threads", type=int, default=THREADS)
    return parse_job(parser, argv)


def open_checked(source: Source, *, labels: bool) -> Volume:
    """A volume of ids, or an image; DataError if it differs from its manifest, if it has one."""
    if not is_address(source.path) and store_with_manifest(Path(source.path)):
        check_manifest(Path(source.path))
    return open_source(source) if labels else open_image(source)


def exported_box(volume: Volume, within: Source | None) -> VoxelBox:
    """The box to export: all of the volume, or its overlap with another one.

    DataError if they do not overlap.
    """
    if within is None:
        return volume.box
    other = open_checked(within, labels=True)
    box = other.box.to_nm(other.voxel_size_nm).to_voxels(volume.voxel_size_nm)
    if (common := box.intersect(volume.box)).is_empty:
        raise DataError(f"{volume.name} and {other.name} do not overlap")
    return common


def progress_folder(
    settings: ExportSettings, volume: Volume, box: VoxelBox, plan: LayerPlan, output: Path
) -> str:
    """Name of the folder that keeps the progress of exactly this layer."""
    identity = {
        "info": plan.info(),
        "format": settings.format,
        "box": [list(box.offset), list(box.shape)],
        "gzip": plan.gzip,
        "volume": settings.source,
        "zarr_format": settings.zarr_format,
        "shapes": settings.shapes,
        "source": [input_digest(path) for path in local_paths([settings.source])],
        "edition": volume.reader.record.version if volume.reader else None,
        "output": str(output.resolve()),
    }
    return work_digest(identity)


def add_shapes(
    layer: Path, work: Path, settings: ExportSettings, known: dict[str, str], threads: int
) -> dict[str, str]:
    """Adds meshes and skeletons to a layer, and the SHA-256 of their files to `known`.

    Returns the digests of OBJ and SWC files, as manifests have them.
    """
    if settings.shapes is None:
        return {}
    from retrace.shapes.layer import ShapeWriter

    writer = ShapeWriter(layer, work / "shapes", settings.shapes, settings.gzip)
    writer.write(threads)
    known.update(writer.digests)
    return {path: writer.digests[path][:16] for path in writer.files}


def print_link(layer: Path, *, labels: bool) -> None:
    """Prints how to look at a layer: the command that serves it, and then the link."""
    kind = "segmentation" if labels else "image"
    link = layer_link(layer.name, kind, f"http://127.0.0.1:{PORT}")
    program = relative_path(Path(__file__).with_name("serve.py"))
    print(f"[export] to open it: python {program} {layer.parent}\nthen {link}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    begin = time.monotonic()
    arguments = parse_args(argv)
    settings = check(ExportSettings, arguments.settings, "--settings")
    output: Path = arguments.output
    volume = open_checked(settings.source, labels=settings.labels)
    box = exported_box(volume, settings.within)
    layer = ExportedLayer(
        volume,
        box,
        output.stem,
        settings.labels,
        settings.gzip,
        arguments.threads,
        settings.zarr_format,
    )
    prepare: Plan = LAYER_FORMATS[settings.format].load("writer")
    plan, write = prepare(layer)
    work = arguments.work / progress_folder(settings, volume, box, plan, output)
    check_replaceable(output, work, in_results=running_job() is not None)
    partial = output.with_name(output.name + ".partial")
    if not work.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    with same_version(work, volume):
        known = write(partial, work)
        files = add_shapes(partial, work, settings, known, arguments.threads)
    publish(partial, output)
    write_manifest(
        output,
        inputs=local_paths([settings.source]),
        settings=arguments.settings,
        seconds=time.monotonic() - begin,
        read=remote_reads(volume),
        known=known,
        extra={"files": files} if files else None,
    )
    remove_afterwards(work)
    print(f"[export] {output}: {len(plan.mips)} mips of {list(box.shape)} voxels", flush=True)
    if settings.format == "precomputed" and not settings.gzip:
        print_link(output, labels=settings.labels)


if __name__ == "__main__":
    run(main)
