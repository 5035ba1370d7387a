"""Builds a prediction job from its settings: inputs, networks on their devices, tiles, scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrace.checkpoints.safetensors import load_model
from retrace.device import choose_devices, uses_bf16
from retrace.errors import DataError
from retrace.files import digest
from retrace.geometry import Triple, VoxelBox
from retrace.inference.inputs import (
    NetworkInputs,
    check_covered,
    chosen_heads,
    descriptor_stores,
    open_network_inputs,
    region_of_interest,
)
from retrace.inference.prediction_store import PartialPrediction, PredictionLayout
from retrace.inference.predictor import Predictor
from retrace.inference.tile_shape import check_fits, plan_tile, prediction_chunks, shard_tile
from retrace.inference.tiles import tiles
from retrace.inference.volume import Prediction
from retrace.networks import ZnnNetwork, build_network
from retrace.networks.tuning import set_convolution_modes
from retrace.storage.manifest import input_digest
from retrace.storage.reads import local_paths, volume_version
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.value_checks import check_raw, check_raw_type

COMPUTE_DEFAULTS: dict[str, Any] = {
    "device": "auto",
    "precision": "auto",
    "compile": False,
    "threads": None,
    "gpus": 1,
}
"""Settings of where and how fast to compute. They may be left out, and are no part of a result's
identity."""


def build_prediction(
    settings: Mapping[str, Any], model: Path, work: Path, output: Path, shard: Shard = SINGLE_SHARD
) -> Prediction:
    """The prediction of one volume, or of one shard of it, with the weights of `model`.

    `work`: folder that holds the scratch of all predictions; `output`: the store to write, whose
    data stay in OUTPUT.partial until the prediction is complete.
    Raises ConfigError, DataError or DeviceError if the settings, the weights, the volume or the
    memory do not allow it.
    """
    inputs = open_network_inputs(settings)
    heads = chosen_heads(settings)
    predictors = build_predictors(settings, model, heads, raw_is_read=inputs.raw_is_read)
    network = predictors[0].network
    box = prediction_box(settings, inputs, predictors[0])
    tile = prediction_tile(settings, predictors[0], box, shard)
    chunks = prediction_chunks(network.stride)
    layout = PredictionLayout(box, inputs.raw.voxel_size_nm, heads, settings["dtype"], chunks)
    scratch = work / prediction_digest(settings, model, inputs, output, shard)
    store = output.with_name(output.name + ".partial")
    partial = PartialPrediction(store, scratch, layout, tile)
    grid = shard.of(list(tiles(network, box, partial.tile_shape)))
    return Prediction(predictors, inputs, partial, grid, shard, scratch)


def prediction_box(
    settings: Mapping[str, Any], inputs: NetworkInputs, predictor: Predictor
) -> VoxelBox:
    """The box to predict, world voxels; DataError if raw has no such box or unusable values."""
    raw = inputs.raw
    roi = region_of_interest(settings["volume"], raw)
    padding = settings["network"]["predict_padding"]
    box = inputs.output_box(predictor.network, padding, roi)
    if raw.reader is not None:
        check_covered(raw, box, roi)
        check_raw_type(raw)
    else:
        check_raw(raw)
    return box


def prediction_tile(
    settings: Mapping[str, Any], predictor: Predictor, box: VoxelBox, shard: Shard
) -> Triple:
    """The tile shape (z, y, x); DeviceError if it does not fit into this machine's memory."""
    network = predictor.network
    if shard == SINGLE_SHARD:
        return plan_tile(network, box, settings["tile"], predictor.largest_window)
    inference_shape = settings["network"].get("inference_shape")
    tile = shard_tile(network, box, settings["tile"], inference_shape)
    check_fits(predictor, tile)
    return tile


def build_predictors(
    settings: Mapping[str, Any], model: Path, heads: Mapping[str, int], *, raw_is_read: bool
) -> list[Predictor]:
    """The network with its trained weights, once on each device that the settings choose."""
    options = {**COMPUTE_DEFAULTS, **settings}
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    return [
        build_predictor(options, device, model, heads, raw_is_read)
        for device in choose_devices(options["device"], options["gpus"])
    ]


def build_predictor(
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
    if isinstance(network, ZnnNetwork):
        mode, shape = options["network"]["forward_conv_mode"], options["network"]["inference_shape"]
        set_convolution_modes(network, mode or "direct", shape, device, training=False)
    return Predictor(
        network,
        device,
        heads=tuple(heads),
        bf16=uses_bf16(options["precision"], device),
        dtype=options["dtype"],
        # "auto" does not compile: tiles at the border have shapes of their own, and torch would
        # compile the network for each of them.
        compiled=options["compile"] is True,
        raw_channels=int(raw_is_read),
    )


def check_weights(model: Path, network: nn.Module) -> None:
    """Raises DataError for a NaN or infinite weight, which would make every voxel NaN."""
    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise DataError(f"{model}: {name} holds NaN or infinity; train this network again")


def prediction_digest(
    settings: Mapping[str, Any], model: Path, inputs: NetworkInputs, output: Path, shard: Shard
) -> str:
    """The name of the scratch folder: a digest of everything that decides the result.

    A job resumes only from a folder of the same settings, weights, volumes, output and shard.
    """
    sources, mask = settings["volume"], inputs.tissue_mask
    identity = {
        "settings": {k: v for k, v in settings.items() if k not in COMPUTE_DEFAULTS},
        "model": input_digest(model),
        "raw": [list(inputs.raw.array.shape), volume_version(inputs.raw, sources["raw"]["path"])],
        "tissue_mask": volume_version(mask, sources["tissue_mask"]["path"]) if mask else None,
        "descriptors": [input_digest(path) for path in descriptor_stores(settings)],
        "output": str(output.resolve()),
        "shard": str(shard),
    }
    if settings["network"].get("recursive"):
        stores = [Path(source["path"]) for source in sources["inputs"]]
        identity["inputs"] = [input_digest(path) for path in stores if path.is_dir()]
    return digest(identity)


def input_files(settings: Mapping[str, Any], model: Path) -> list[Path]:
    """The files on this machine that a prediction reads, for its manifest."""
    volume = settings["volume"]
    local = local_paths([volume["raw"], *volume.get("inputs", [])])
    return [model, *local, *descriptor_stores(settings)]
