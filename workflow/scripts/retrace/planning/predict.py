"""Jobs that predict a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import head_names
from retrace.config.splits import LABELS_BOX
from retrace.config.unet_shapes import output_shape
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import Settings
from retrace.job import Job
from retrace.planning.choices import COMPUTE, gpus_for, without
from retrace.planning.experiment import Planner
from retrace.planning.paths import (
    predicted,
    result_stores,
    results,
    tissue_mask_files,
    volume_files,
    with_manifests,
)
from retrace.planning.segment import tissue_mask_source
from retrace.planning.shards import execution_of
from retrace.planning.targets import pair_target
from retrace.planning.train import recursive_inputs, recursive_stores
from retrace.planning.weights import model_file


def _hull(boxes: Sequence[Mapping[str, Any] | None]) -> Settings | None:
    """The smallest box around all; None, the whole volume, as soon as one is None."""
    limits = [box for box in boxes if box is not None]
    if len(limits) < len(boxes) or not limits:
        return None
    low = [min(box["offset"][a] for box in limits) for a in range(3)]
    high = [max(box["offset"][a] + box["shape"][a] for box in limits) for a in range(3)]
    return {"offset": low, "shape": [h - b for b, h in zip(low, high, strict=True)]}


def predict_settings(
    config: WorkflowConfig,
    dataset: Dataset,
    network: NetworkSettings,
    volume: str,
) -> Settings:
    """What predict.py reads for one volume; only the part that validation and test need of it."""
    entries = [*dataset["validation"], *dataset["test"]]
    boxes = [entry["roi_nm"] for entry in entries if entry["volume"] == volume]
    source = dataset["volumes"][volume]
    roi = _hull(boxes) if boxes else source["roi_nm"]
    margin = [0, 0, 0]
    if head_names(network) == ["lsds"]:
        margin = _context_nm(network, dataset["voxel_size_nm"])
    volume_of_labels = {}
    if source["roi_nm"] == LABELS_BOX:
        roi, volume_of_labels = None, {"roi_of": source["labels"], "margin_nm": margin}
    elif roi:
        roi = _grown(roi, margin)
    descriptors = None
    if name := network.get("autocontext"):
        store = results(dataset["name"], name, volume, "prediction.zarr")
        descriptors = {"path": store, "array": "lsds"}
    return {
        "volume": {
            "raw": source["raw"],
            "roi_nm": roi,
            **volume_of_labels,
            **tissue_mask_source(source),
            **_further_inputs(dataset, network, volume),
        },
        "descriptors": descriptors,
        "network": network,
        "heads": head_names(network),
        "tile": network.get("forward_outsz") or config["tile"],
        "dtype": config["prediction_dtype"],
        "gpus": gpus_for(config, "predict"),
        **{key: config[key] for key in COMPUTE},
    }


def whole_settings(
    config: WorkflowConfig, dataset: Dataset, network: NetworkSettings, volume: str
) -> Settings:
    """What predict.py reads for all of a volume, in floats: the image of another network."""
    settings = predict_settings(config, dataset, network, volume)
    kept = without(settings["volume"], "roi_of", "margin_nm", "tissue_mask")
    return {**settings, "volume": {**kept, "roi_nm": None}, "dtype": "float32"}


def _further_inputs(dataset: Dataset, network: NetworkSettings, volume: str) -> Settings:
    """Images that a network reads in addition to raw, in the order of its input nodes."""
    nodes = network.get("inputs", [])[1:]
    images = {**dataset["volumes"][volume].get("inputs", {})}
    images |= recursive_inputs(dataset, network, volume)
    return {"inputs": [images[node] for node in nodes]} if nodes else {}


def _context_nm(network: NetworkSettings, voxel_size_nm: Sequence[int]) -> list[int]:
    """Half a context, nm: the descriptors around a box that auto-context networks read."""
    shape = network["input_shape"]
    out = output_shape(shape, network["downsample"])
    return [(s - o) // 2 * v for s, o, v in zip(shape, out, voxel_size_nm, strict=True)]


def _grown(roi: Mapping[str, Any], margin: Sequence[int]) -> Settings:
    """The box and `margin` around it, nm."""
    return {
        "offset": [o - m for o, m in zip(roi["offset"], margin, strict=True)],
        "shape": [s + 2 * m for s, m in zip(roi["shape"], margin, strict=True)],
    }


def predict_job(
    planner: Planner, dataset: str, network: str, volume: str, shard: str | None = None
) -> Job:
    """Predicts a volume, or one shard of it: the part that validation and test need."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    parts = ["raw", "inputs"]
    if data["volumes"][volume]["roi_nm"] == LABELS_BOX:
        parts.append("labels")
    waits = volume_files(data, [volume], parts) + tissue_mask_files(data, volume)
    waits += _other_predictions(data, net, volume)
    settings = predict_settings(planner.config, data, net, volume)
    return Job(
        settings, {"model": model_file(planner, dataset, network)}, waits, execution_of(shard)
    )


def _other_predictions(dataset: Dataset, network: NetworkSettings, volume: str) -> list[str]:
    """Predictions by other networks that an auto-context or recursive network reads."""
    name = network.get("autocontext")
    first = [results(dataset["name"], name, volume, "prediction.zarr")] if name else []
    return with_manifests(first) + recursive_stores(dataset, network, [volume])


def predict_whole_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Predicts all of a volume in floats, as the image of another network."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    waits = volume_files(data, [volume], ["raw", "inputs"])
    settings = whole_settings(planner.config, data, net, volume)
    return Job(settings, {"model": model_file(planner, dataset, network)}, waits)


@pair_target("predict")
def predictions(planner: Planner, dataset: str, network: str) -> list[str]:
    """Predictions of all predicted volumes; with `output_prefix` also in ZNN's files."""
    experiment = planner.experiment("predict", dataset, network)
    data, net = experiment.dataset, experiment.network
    if "examples" in data:
        return [results(dataset, network, "predictions.h5")]
    volumes = predicted(data)
    stores = result_stores(dataset, network, volumes, "prediction")
    wants_files = planner.config["output_prefix"] and family_of(net).output_names
    names = [results(dataset, network, v, "znn_outputs.json") for v in volumes if wants_files]
    return with_manifests(stores.values()) + names
