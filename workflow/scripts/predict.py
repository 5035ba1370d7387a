"""Predicts a whole volume with a trained network, tile by tile; goes on where a kill left it."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrace.checkpoints.safetensors import load_model
from retrace.device import choose_devices, keep_freed_memory, uses_bf16
from retrace.errors import DataError, DeviceError, run
from retrace.files import digest
from retrace.geometry import Triple, VoxelBox
from retrace.inference.inputs import (
    AnyInputs,
    check_covered,
    chosen_heads,
    descriptor_stores,
    open_inputs,
    region_of_interest,
)
from retrace.inference.predictor import Predictor
from retrace.inference.tiles import TileNetwork, chunk_shape, snap, tiles
from retrace.inference.volume import Output, PartialStore, plan_tile, predict_tiles
from retrace.networks import build_network
from retrace.networks.tuning import set_modes
from retrace.storage.manifest import input_digest, manifest_path, write_manifest
from retrace.storage.shards import WHOLE, Shard, parse_shard
from retrace.storage.volumes import (
    check_raw,
    check_raw_type,
    local_inputs,
    one_edition,
    read_elsewhere,
    version_of,
)
from retrace.storage.zarr_writer import publish

OPTIONAL: dict[str, Any] = {
    "device": "auto",
    "precision": "auto",
    "compile": False,
    "threads": None,
    "gpus": 1,
}
"""Settings that say where and how fast, not what: they may be left out."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads)
    parser.add_argument("--model", required=True, type=Path, help="model.safetensors")
    parser.add_argument("--work", required=True, type=Path, help="folder that survives a kill")
    parser.add_argument("--output", required=True, type=Path, help="prediction.zarr")
    parser.add_argument("--shard", type=parse_shard, default=WHOLE, metavar="1-of-8")
    return parser.parse_args(argv)


def check_weights(model: Path, network: nn.Module) -> None:
    """DataError where a weight is NaN or infinite: every voxel predicted with it would be too."""
    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise DataError(f"{model}: {name} holds NaN or infinity; train this network again")


def make_predictors(
    settings: Mapping[str, Any], model: Path, heads: Mapping[str, int], *, raw_is_read: bool
) -> list[Predictor]:
    """The network with its trained weights on each of the asked-for devices."""
    options = {**OPTIONAL, **settings}
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    return [
        make_predictor(options, device, model, heads, raw_is_read)
        for device in choose_devices(options["device"], options["gpus"])
    ]


def make_predictor(
    options: Mapping[str, Any],
    device: torch.device,
    model: Path,
    heads: Mapping[str, int],
    raw_is_read: bool = True,
) -> Predictor:
    """The network with its trained weights on one device; `options`: all settings."""
    network = build_network(options["network"])
    load_model(model, network, options["network"])
    check_weights(model, network)
    set_modes(network, options["network"], device, training=False)
    return Predictor(
        network,
        device,
        heads=tuple(heads),
        bf16=uses_bf16(options["precision"], device),
        dtype=options["dtype"],
        # "auto" is off: shapes differ at the borders, and each would be compiled for itself.
        compiled=options["compile"] is True,
        raw_channels=int(raw_is_read),
    )


def work_folder(arguments: argparse.Namespace, inputs: AnyInputs) -> Path:
    """Scratch of exactly this prediction: other settings, weights or raw get another folder."""
    what = {k: v for k, v in arguments.settings.items() if k not in OPTIONAL}
    sources, mask = arguments.settings["volume"], inputs.tissue_mask
    changed = version_of(inputs.raw, sources["raw"])
    identity = {
        "settings": what,
        "model": input_digest(arguments.model),
        "raw": [list(inputs.raw.array.shape), changed],
        "tissue_mask": version_of(mask, sources["tissue_mask"]) if mask else None,
        "descriptors": [input_digest(path) for path in descriptor_stores(arguments.settings)],
        "output": str(arguments.output.resolve()),
        "shard": str(arguments.shard),
    }
    if arguments.settings["network"].get("recursive"):
        stores = [Path(s["path"]) for s in sources["inputs"]]
        identity["inputs"] = [input_digest(p) for p in stores if p.is_dir()]
    return Path(arguments.work) / digest(identity)


def tile_for_shards(
    network: TileNetwork, box: VoxelBox, settings: Mapping[str, Any], unit: Triple
) -> Triple:
    """The tile of a prediction in shares: whole chunks, and the same in every job.

    As configured, or what the published prediction of this network reads at once; never by the
    memory that one machine has free.
    """
    asked = settings["tile"]
    if isinstance(asked, str):
        asked = network.output_shape(settings["network"]["inference_shape"])
    # A tile smaller than a chunk becomes one chunk, as two jobs must not share one.
    return snap(asked, unit, box)


def work_grid(
    predictor: Predictor, box: VoxelBox, settings: Mapping[str, Any], shard: Shard
) -> Triple:
    """The tile shape; DeviceError where it does not fit into this machine's memory."""
    network = predictor.network
    if shard == WHOLE:
        return plan_tile(network, box, settings["tile"], predictor.largest_window)
    tile = tile_for_shards(network, box, settings, chunk_shape(network.stride))
    window = math.prod(network.valid_shape(tile))
    if window > (fits := predictor.largest_window(window)):
        raise DeviceError(
            f"a tile of {list(tile)} voxels reads {window / 1e6:.1f} Mvoxel, "
            f"{fits / 1e6:.1f} fit into memory; set a smaller `tile` "
            "(z, y, x voxels), the same for all shares"
        )
    return tile


def predict(arguments: argparse.Namespace) -> None:
    """Writes `prediction.zarr` and its manifest, the manifest last."""
    begin = time.monotonic()
    keep_freed_memory()
    settings, output = arguments.settings, arguments.output
    inputs = open_inputs(settings)
    raw = inputs.raw
    heads = chosen_heads(settings)
    predictors = make_predictors(settings, arguments.model, heads, raw_is_read=inputs.raw_is_read)
    predictor = predictors[0]
    network = predictor.network
    roi = region_of_interest(settings["volume"], raw)
    box = inputs.output_box(network, settings["network"]["predict_padding"], roi)
    if raw.reader is not None:
        check_covered(raw, box, roi)
        check_raw_type(raw)
    else:
        check_raw(raw)
    planned = work_grid(predictor, box, settings, arguments.shard)
    plan = Output(box, heads, settings["dtype"], chunk_shape(network.stride))
    work = work_folder(arguments, inputs)
    store = PartialStore(output.with_name(output.name + ".partial"), work, plan, raw, planned)
    grid = arguments.shard.of(list(tiles(network, box, store.tile_shape)))
    with one_edition(work, *inputs.volumes, inputs.tissue_mask):
        for _ in predict_tiles(predictors, inputs, store, grid):
            pass
    store.journal.keep(output)
    manifest_path(output).unlink(missing_ok=True)
    publish(store.store, output)
    write_manifest(
        output,
        inputs=[
            arguments.model,
            *local_inputs([settings["volume"]["raw"], *settings["volume"].get("inputs", [])]),
            *descriptor_stores(settings),
        ],
        settings=settings,
        seconds=time.monotonic() - begin,
        extra={
            "tile_shape": list(store.tile_shape),
            "tiles": len(grid),
            "shard": str(arguments.shard),
        },
        read=read_elsewhere(*inputs.volumes, inputs.tissue_mask),
    )
    shutil.rmtree(work, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    predict(parse_arguments(argv))


if __name__ == "__main__":
    run(main)
