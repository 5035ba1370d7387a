"""Exchanges arrays with the legacy engine, which cannot read zarr: input and prediction as .npy.

    legacy_arrays.py input  --settings JSON --output FOLDER
    legacy_arrays.py output --settings JSON --input FOLDER --predicted FOLDER --checkpoint FOLDER
                            --output prediction.zarr

workflow/scripts/legacy/predict.py predicts. Both programs memory-map the .npy files, so a volume
need not fit into memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrace.command_line import add_job, parse_job
from retrace.errors import run
from retrace.files import atomic_write, digest, read_json
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.inference.inputs import (
    NetworkInputs,
    as_unit_float,
    descriptor_stores,
    open_network_inputs,
    region_of_interest,
)
from retrace.inference.prediction_store import PredictionLayout
from retrace.inference.tile_shape import snap
from retrace.inference.tiles import TileNetwork, half_context, tiles
from retrace.networks import build_network
from retrace.planning.predict_settings import PredictionSettings, read_prediction_settings
from retrace.progress import progress
from retrace.storage.chunk_edges import prediction_chunks
from retrace.storage.manifest import input_digest, write_manifest
from retrace.storage.reads import local_paths, remote_reads, volume_version
from retrace.storage.unfinished import open_unfinished
from retrace.storage.value_checks import check_not_blank, check_raw
from retrace.storage.zarr_writer import publish

BLOCK = 256
"""Edge of the blocks that are copied, voxels."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    lay_out, take_up = verbs.add_parser("input"), verbs.add_parser("output")
    for verb in (lay_out, take_up):
        verb.add_argument("--output", required=True, type=Path)
    add_job(lay_out)
    add_job(take_up, file=["input", "predicted", "checkpoint"])
    return parse_job(parser, argv)


def tile_shape(settings: PredictionSettings, module: TileNetwork, box: VoxelBox) -> Triple:
    """Output shape of one tile, voxels, from `tile` or the network's `inference_shape`.

    A multiple of the stride, so that tiles give the same voxels as one pass over the volume.
    """
    shape = settings.tile
    if shape == "auto":
        shape = module.output_shape(settings.network.inference_shape)
    return snap(shape, module.stride, box)


def prediction_plan(
    settings: PredictionSettings, inputs: NetworkInputs
) -> tuple[dict[str, Any], VoxelBox]:
    """The content of plan.json, and the box of input.npy in world voxels."""
    network = settings.network
    module = build_network(network, device="meta")
    roi = region_of_interest(settings.volume, inputs.raw)
    box = inputs.output_box(module, network.predict_padding, roi)
    shape = tile_shape(settings, module, box)
    window = triple(module.valid_shape(shape))
    begins = [
        [c - b for c, b in zip(t.core.offset, box.offset, strict=True)]
        for t in tiles(module, box, shape)
    ]
    last = [max(begin[axis] for begin in begins) for axis in range(3)]
    origin = triple([o - c for o, c in zip(box.offset, half_context(module), strict=True)])
    read = VoxelBox(origin, triple([b + w for b, w in zip(last, window, strict=True)]))
    plan = {
        "network": network.plain(),
        "heads": settings.stored_heads(),
        "dtype": settings.dtype,
        "raw_channels": int(inputs.raw_is_read),
        "window_shape": list(window),
        "core_shape": list(shape),
        "output_shape": list(box.shape),
        "output_offset": list(box.offset),
        "tiles": begins,
        "inputs": digest(
            [
                str(settings.volume.raw.plain()),
                volume_version(inputs.raw, settings.volume.raw.path),
                _descriptors(settings),
            ]
        ),
    }
    return plan, read


def _descriptors(settings: PredictionSettings) -> list[str]:
    return [input_digest(path) for path in descriptor_stores(settings)]


def copy_input(inputs: NetworkInputs, box: VoxelBox, channels: int, path: Path) -> None:
    """Writes input.npy (C, Z, Y, X) of `box` block by block: uint8, or float32 in [0, 1]."""
    is_uint8 = inputs.read(VoxelBox(box.offset, (1, 1, 1))).dtype == np.uint8
    dtype = np.dtype(np.uint8 if is_uint8 else np.float32)
    target = np.lib.format.open_memmap(path, "w+", dtype, (channels, *box.shape))
    parts = list(blocks(box, (BLOCK, BLOCK, BLOCK)))
    for part in progress(parts, len(parts), "input", "blocks"):
        values = inputs.read(part)
        target[(slice(None), *part.slices(box.offset))] = (
            values if is_uint8 else as_unit_float(values)
        )
    target.flush()


def write_input(args: argparse.Namespace) -> None:
    """Writes input.npy and plan.json; the folder appears when both are complete."""
    settings = read_prediction_settings(args.settings)
    inputs = open_network_inputs(settings)
    plan, box = prediction_plan(settings, inputs)
    check_raw(inputs.raw, inputs.raw.box.intersect(box))
    if inputs.raw_is_read:
        check_not_blank(inputs.raw, box)
    partial = args.output.with_name(args.output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy_input(inputs, box, settings.network.input_channels, partial / "input.npy")
    plan["read"] = remote_reads(inputs.raw)
    atomic_write(partial / "plan.json", json.dumps(plan, indent=1, sort_keys=True))
    publish(partial, args.output)


def store_prediction(args: argparse.Namespace) -> None:
    """Writes prediction.zarr, then its manifest."""
    begin = time.monotonic()
    settings, output = read_prediction_settings(args.settings), args.output
    plan = read_json(args.input / "plan.json")
    prediction = read_json(args.predicted / "prediction.json")
    raw = open_network_inputs(settings).raw
    box = VoxelBox(triple(plan["output_offset"]), triple(plan["output_shape"]))
    chunks = prediction_chunks(build_network(settings.network, device="meta").stride)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    layout = PredictionLayout(
        box, raw.voxel_size_nm, plan["heads"], plan["dtype"], chunks, settings.zarr_format
    )
    layout.create_arrays(partial)
    group = open_unfinished(partial)
    for head in plan["heads"]:
        copy_output(np.load(args.predicted / f"{head}.npy", mmap_mode="r"), group[head], head)
    publish(partial, output)
    checkpoint = sorted(args.checkpoint.glob(f"*_{prediction['iteration']}.*"))
    sources = [*local_paths([settings.volume.raw]), *descriptor_stores(settings)]
    extra = {"engine": "legacy", "tiles": len(plan["tiles"]), "predicted_by": prediction}
    write_manifest(
        output,
        inputs=[*checkpoint, *sources],
        settings=settings.plain(),
        seconds=prediction["seconds"] + time.monotonic() - begin,
        extra=extra | {"tile_shape": plan["core_shape"]},
        read=plan["read"],
    )


def copy_output(source: np.ndarray, target: Any, head: str) -> None:
    """Copies one array (C, Z, Y, X) into the zarr, chunk by chunk."""
    box = VoxelBox((0, 0, 0), triple(source.shape[1:]))
    parts = list(blocks(box, triple(target.chunks[1:])))
    for part in progress(parts, len(parts), head, "chunks"):
        region = (slice(None), *part.slices())
        target[region] = source[region]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    {"input": write_input, "output": store_prediction}[args.verb](args)


if __name__ == "__main__":
    run(main)
