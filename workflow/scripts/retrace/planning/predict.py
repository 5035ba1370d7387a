"""Jobs that predict a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.examples_model import ExamplesDataset
from retrace.config.families import family_of
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.config.networks import head_names, own_paths
from retrace.config.splits import LABELS_BOX, region_of
from retrace.config.unet_shapes import output_shape
from retrace.config.workflow import WorkflowConfig
from retrace.formats.source import Region, Source
from retrace.geometry import NmTriple, in_nm, nm_triple
from retrace.job import Job
from retrace.planning.choices import gpus_for
from retrace.planning.experiment import Planner
from retrace.planning.foreign_files import output_prefix
from retrace.planning.paths import (
    predicted,
    result_stores,
    results,
    tissue_mask_files,
    volume_files,
    volumes_of,
    with_manifests,
)
from retrace.planning.predict_settings import (
    PredictedVolume,
    PredictionSettings,
    WholePredictionSettings,
)
from retrace.planning.shards import execution_of
from retrace.planning.targets import pair_target
from retrace.planning.train import recursive_inputs, recursive_stores
from retrace.planning.weights import model_file


def _hull(boxes: Sequence[Region | None]) -> Region | None:
    """The smallest box around all; None, the whole volume, as soon as one is None."""
    limits = [box for box in boxes if box is not None]
    if len(limits) < len(boxes) or not limits:
        return None
    low = [min(box.offset[a] for box in limits) for a in range(3)]
    high = [max(box.offset[a] + box.shape[a] for box in limits) for a in range(3)]
    return Region(
        offset=nm_triple(low), shape=nm_triple([h - b for b, h in zip(low, high, strict=True)])
    )


def predict_settings(
    config: WorkflowConfig,
    dataset: Dataset,
    network: VoxelNetworkSettings,
    volume: str,
) -> PredictionSettings:
    """What predict.py reads for one volume; only the part that validation and test need of it."""
    descriptors = None
    if network.autocontext:
        store = results(dataset.name, network.autocontext, volume, "prediction.zarr")
        descriptors = Source(path=store, array="lsds")
    return PredictionSettings(
        volume=_predicted_volume(dataset, network, volume),
        descriptors=descriptors,
        network=network,
        heads=tuple(head_names(network)),
        tile=network.prediction_tile or config.tile,
        dtype=config.prediction_dtype,
        zarr_format=config.zarr_format,
        gpus=gpus_for(config, "predict"),
        device=config.device,
        precision=config.precision,
        compile=config.compile,
        cpu_library=config.cpu_library,
    )


def _predicted_volume(
    dataset: Dataset, network: VoxelNetworkSettings, name: str
) -> PredictedVolume:
    """A volume, and the part of it that validation and test need, with the context of readers."""
    volume = dataset.volumes[name]
    margin_nm = _margin_nm(dataset, network)
    part: dict[str, Any]
    if volume.roi_nm == LABELS_BOX:
        part = {"roi_nm": None, "roi_of": volume.labels, "margin_nm": margin_nm}
    else:
        entries = [*dataset.validation, *dataset.test]
        boxes = [entry.roi_nm for entry in entries if entry.volume == name]
        roi = _hull(boxes) if boxes else region_of(volume)
        part = {"roi_nm": None if roi is None else _grown(roi, margin_nm)}
    if volume.tissue_mask is not None:
        part["tissue_mask"] = volume.tissue_mask
    return PredictedVolume(raw=volume.raw, **part, **_further_inputs(dataset, network, name))


def whole_settings(
    config: WorkflowConfig, dataset: Dataset, network: VoxelNetworkSettings, volume: str
) -> WholePredictionSettings:
    """What predict.py reads for all of a volume, in floats: the image of another network."""
    settings = predict_settings(config, dataset, network, volume)
    part = settings.volume.without("roi_of", "margin_nm", "tissue_mask")
    whole = part.model_copy(update={"roi_nm": None})
    return WholePredictionSettings(**{**settings.explicit(), "volume": whole, "dtype": "float32"})


def _further_inputs(
    dataset: Dataset, network: VoxelNetworkSettings, volume: str
) -> dict[str, tuple[Source, ...]]:
    """Images that a network reads in addition to raw, in the order of its input nodes."""
    nodes = network.inputs[1:]
    images = {**dataset.volumes[volume].inputs, **recursive_inputs(dataset, network, volume)}
    return {"inputs": tuple(images[node] for node in nodes)} if nodes else {}


def _margin_nm(dataset: Dataset, network: VoxelNetworkSettings) -> NmTriple:
    """Half a context, nm: what auto-context networks read of descriptors around a box.

    0 for networks whose predictions no other network reads.
    """
    if not isinstance(network, LsdNetworkSettings) or head_names(network) != ["lsds"]:
        return (0, 0, 0)
    out = output_shape(network.input_shape, network.downsample)
    half = [(s - o) // 2 for s, o in zip(network.input_shape, out, strict=True)]
    return in_nm(half, dataset.voxel_size_nm)


def _grown(roi: Region, margin: NmTriple) -> Region:
    """The box and `margin` around it, nm."""
    return Region(
        offset=nm_triple([o - m for o, m in zip(roi.offset, margin, strict=True)]),
        shape=nm_triple([s + 2 * m for s, m in zip(roi.shape, margin, strict=True)]),
    )


def predict_job(
    planner: Planner, dataset: str, network: str, volume: str, shard: str | None = None
) -> Job:
    """Predicts a volume, or one shard of it: the part that validation and test need."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    parts = ["raw", "inputs"]
    if data.volumes[volume].roi_nm == LABELS_BOX:
        parts.append("labels")
    waits = volume_files(data, [volume], parts) + tissue_mask_files(data, volume)
    waits += _other_predictions(data, net, volume)
    settings = predict_settings(planner.config, data, net, volume)
    if own_paths(network).output_prefix:  # ZNN's files hold the exact values
        settings = settings.model_copy(update={"dtype": "float32"})
    return Job(
        settings, {"model": model_file(planner, dataset, network)}, waits, execution_of(shard)
    )


def _other_predictions(dataset: Dataset, network: VoxelNetworkSettings, volume: str) -> list[str]:
    """Predictions by other networks that an auto-context or recursive network reads."""
    name = network.autocontext
    first = [results(dataset.name, name, volume, "prediction.zarr")] if name else []
    return with_manifests(first) + recursive_stores(dataset, network, [volume])


def predict_whole_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Predicts all of a volume in floats, as the image of another network."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    waits = volume_files(data, [volume], ["raw", "inputs"])
    settings = whole_settings(planner.config, data, net, volume)
    return Job(settings, {"model": model_file(planner, dataset, network)}, waits)


def _written_volumes(
    planner: Planner, dataset: Dataset, network: VoxelNetworkSettings
) -> list[str]:
    """Volumes whose predictions are also written in ZNN's files; of a .cfg its forward_range."""
    if not family_of(network).output_names or not output_prefix(planner, network.name):
        return []
    return predicted(dataset) if planner.config.output_prefix else volumes_of(dataset.test)


@pair_target("predict")
def predictions(planner: Planner, dataset: str, network: str) -> list[str]:
    """Predictions of all predicted volumes; with `output_prefix` also in ZNN's files."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    if isinstance(data, ExamplesDataset):
        return [results(dataset, network, "predictions.h5")]
    volumes = predicted(data)
    stores = result_stores(dataset, network, volumes, "prediction")
    written = _written_volumes(planner, data, net)
    names = [results(dataset, network, v, "znn_outputs.json") for v in written]
    return with_manifests(stores.values()) + names
