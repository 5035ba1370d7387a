"""Builds a prediction job from its settings: inputs, networks on their devices, tiles, scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from retrace.checkpoints.safetensors import load_model
from retrace.config.families import family_of
from retrace.device import choose_devices
from retrace.geometry import Triple, VoxelBox, blocks
from retrace.inference.forward import choose_forward
from retrace.inference.inputs import (
    NetworkInputs,
    RawInputs,
    check_covered,
    descriptor_stores,
    open_network_inputs,
    region_of_interest,
)
from retrace.inference.precision import prepare_precision
from retrace.inference.prediction_store import PartialPrediction, PredictionLayout
from retrace.inference.predictor import Predictor
from retrace.inference.tile_shape import check_fits, plan_tile, shard_tile
from retrace.inference.tiles import Tile, TileNetwork, tiles
from retrace.inference.volume import Prediction
from retrace.networks import build_network
from retrace.planning.predict_settings import PredictionSettings
from retrace.records.record import work_digest
from retrace.settings_model import deciding
from retrace.storage.chunk_edges import prediction_chunks
from retrace.storage.manifest import input_digest
from retrace.storage.reads import local_paths, volume_version
from retrace.storage.shard_grid import shard_edges
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.value_checks import (
    BLANK_CHECK_SHAPE,
    check_not_blank,
    check_raw,
    check_sample,
)
from retrace.storage.volumes import Volume

FILES_PER_JOB = 4
"""Files of format 3 that a job writes of each array, if the volume is large enough: with few, jobs
would differ much in size."""


def build_prediction(
    settings: PredictionSettings, model: Path, work: Path, output: Path, shard: Shard = SINGLE_SHARD
) -> Prediction:
    """The prediction of one volume, or of one shard of it, with the weights of `model`.

    `work`: folder that holds the scratch of all predictions; `output`: the store to write, whose
    data stay in OUTPUT.partial until the prediction is complete.
    Raises ConfigError, DataError or DeviceError if the settings, the weights, the volume or the
    memory do not allow it.
    """
    inputs = open_network_inputs(settings)
    heads = settings.stored_heads()
    predictors = build_predictors(settings, model, heads, raw_is_read=inputs.raw_is_read)
    network = predictors[0].network
    box = prediction_box(settings, inputs, predictors[0])
    tile = prediction_tile(settings, predictors[0], box, shard)
    layout = prediction_layout(settings, inputs.raw, box, predictors[0], tile, shard)
    scratch = work / prediction_digest(settings, model, inputs, output, shard)
    store = output.with_name(output.name + ".partial")
    partial = PartialPrediction(store, scratch, layout, tile)
    grid = shard_tiles(network, layout, partial.tile_shape, shard)
    check_image(inputs, box, grid)
    return Prediction(predictors, inputs, partial, grid, shard, scratch)


def prediction_layout(
    settings: PredictionSettings,
    raw: Volume,
    box: VoxelBox,
    predictor: Predictor,
    tile: Triple,
    shard: Shard,
) -> PredictionLayout:
    """The arrays of a prediction of `box` (voxels).

    In several jobs, a file of format 3 holds whole tiles, and each job has files of its own.
    """
    heads, chunks = settings.stored_heads(), prediction_chunks(predictor.network.stride)
    layout = PredictionLayout(
        box, raw.voxel_size_nm, heads, settings.dtype, chunks, settings.zarr_format
    )
    if settings.zarr_format == 2 or shard.count == 1:
        return layout
    return replace(layout, shards=shard_edges(box.shape, tile, fewest=FILES_PER_JOB * shard.count))


def shard_tiles(
    network: TileNetwork, layout: PredictionLayout, tile: Triple, shard: Shard
) -> list[Tile]:
    """The tiles of a job: those of its files of format 3 in several jobs, else a run of tiles."""
    if layout.shards is None:
        return shard.of(list(tiles(network, layout.box, tile)))
    mine = shard.of(list(blocks(layout.box, layout.shards)))
    return [each for part in mine for each in tiles(network, part, tile)]


def prediction_box(
    settings: PredictionSettings, inputs: NetworkInputs, predictor: Predictor
) -> VoxelBox:
    """The box to predict, world voxels; DataError if raw has no such box or unusable values."""
    raw = inputs.raw
    roi = region_of_interest(settings.volume, raw)
    box = inputs.output_box(predictor.network, settings.network.predict_padding, roi)
    if raw.reader is not None:
        check_covered(raw, box, roi)
        check_sample(raw, box)
    else:
        check_raw(raw)
    return box


def check_image(inputs: NetworkInputs, box: VoxelBox, grid: Sequence[Tile]) -> None:
    """DataError if raw is 0 wherever it is predicted in `box` (voxels); reads `grid` first.

    One shard may be empty: then the other tiles decide.
    """
    if isinstance(inputs, RawInputs) and not inputs.raw_is_read:
        return
    own = (tile.core for tile in grid)
    parts = chain(own, blocks(box, BLANK_CHECK_SHAPE))
    check_not_blank(inputs.raw, box, (part for part in parts if not inputs.is_masked(part)))


def prediction_tile(
    settings: PredictionSettings, predictor: Predictor, box: VoxelBox, shard: Shard
) -> Triple:
    """The tile shape (z, y, x); DeviceError if it does not fit into this machine's memory."""
    network = predictor.network
    if shard == SINGLE_SHARD:
        return plan_tile(network, box, settings.tile, predictor.largest_window())
    tile = shard_tile(network, box, settings.tile, settings.network.inference_shape)
    check_fits(predictor, tile)
    return tile


def build_predictors(
    settings: PredictionSettings, model: Path, heads: Mapping[str, int], *, raw_is_read: bool
) -> list[Predictor]:
    """The network with its trained weights, once on each device that the settings choose."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return [
        build_predictor(settings, device, model, heads, raw_is_read=raw_is_read)
        for device in choose_devices(settings.device, settings.gpus)
    ]


def build_predictor(
    settings: PredictionSettings,
    device: torch.device,
    model: Path,
    heads: Mapping[str, int],
    *,
    raw_is_read: bool,
) -> Predictor:
    """The network with its trained weights on one device."""
    network: Any = settings.network
    module = build_network(network)
    family_of(network).load("builder").prepare_prediction(module, network, device)
    load_model(model, module, network)
    module = module.to(device).eval()
    bf16 = prepare_precision(settings.precision, settings.dtype, device)
    compiled, cpu_library = settings.compile is True, settings.cpu_library
    return Predictor(
        module,
        device,
        heads=tuple(heads),
        forward=choose_forward(
            module, device, bf16=bf16, compiled=compiled, cpu_library=cpu_library
        ),
        bf16=bf16,
        dtype=settings.dtype,
        raw_channels=int(raw_is_read),
    )


def prediction_digest(
    settings: PredictionSettings, model: Path, inputs: NetworkInputs, output: Path, shard: Shard
) -> str:
    """The name of the scratch folder: a digest of everything that decides the result.

    A job resumes only from a folder of the same settings, weights, volumes, output and shard.
    """
    volume, mask = settings.volume, inputs.tissue_mask
    tissue_mask = None
    if mask is not None and volume.tissue_mask is not None:
        tissue_mask = volume_version(mask, volume.tissue_mask.path)
    identity = {
        "settings": deciding(settings),
        "model": input_digest(model),
        "raw": [list(inputs.raw.array.shape), volume_version(inputs.raw, volume.raw.path)],
        "tissue_mask": tissue_mask,
        "descriptors": [input_digest(path) for path in descriptor_stores(settings)],
        "output": str(output.resolve()),
        "shard": str(shard),
    }
    if settings.network.recursive:
        stores = [Path(source.path) for source in volume.inputs]
        identity["inputs"] = [input_digest(path) for path in stores if path.is_dir()]
    return work_digest(identity)


def input_files(settings: PredictionSettings, model: Path) -> list[Path]:
    """The files on this machine that a prediction reads, for its manifest."""
    local = local_paths([settings.volume.raw, *settings.volume.inputs])
    return [model, *local, *descriptor_stores(settings)]
