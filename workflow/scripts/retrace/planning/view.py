"""Jobs that show data and results in neuroglancer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrace.config.compatibility import check_verb
from retrace.config.dataset_model import Dataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import BOUNDARY, head_names
from retrace.config.view_model import ErrorsSource, LayerKind, ViewLayerSource, ViewSettings
from retrace.job import Job
from retrace.planning import align
from retrace.planning.experiment import Planner
from retrace.planning.paths import layer_files, mask_store, predicted, results, volumes_of
from retrace.planning.targets import data_target, pair_target
from retrace.planning.train import described_training
from retrace.planning.training_folders import PRETRAINED_LSDS, WORK, find_snapshot
from retrace.reading import json_if_intact

BATCH_LAYERS: dict[str, LayerKind] = {
    "raw": "raw",
    "labels": "labels",
    "labels_mask": "mask",
    "gt_classes": "labels",
}
"""How the viewer calls the arrays of a snapshot that are no head of the network."""
WHOLE_RANGE = {"percentiles": [0, 100]}
"""Normalisation of an image whose range nothing states."""
HEAD_LAYERS: dict[str, LayerKind] = {
    "affs": "affinities",
    "lsds": "lsds",
    BOUNDARY: "boundary",
    "classes": "boundary",
}
"""How the viewer calls a network's outputs; others are maps of [0, 1], shown like boundaries."""


def data_layers(dataset: Dataset, volume: str) -> list[ViewLayerSource]:
    """Viewer layers of a volume before any training: raw, and labels and mask if it has them."""
    source = dataset.volumes[volume]
    layers = [ViewLayerSource(kind="raw", **source.raw.explicit())]
    if source.labels is not None:
        layers.append(ViewLayerSource(kind="labels", **source.labels.explicit()))
        store = mask_store(dataset, volume)
        layers.append(ViewLayerSource(kind="mask", path=store, array="labels_mask"))
    return layers


def result_layers(dataset: Dataset, network: NetworkSettings, volume: str) -> list[ViewLayerSource]:
    """Viewer layers of a network's results for a volume."""
    heads = head_names(network)
    arrays = [
        (HEAD_LAYERS.get(head.split("_")[0], "boundary"), "prediction", head) for head in heads
    ]
    if "affs" in heads and dataset.validation:
        arrays += [
            ("fragments", "fragments", "fragments"),
            ("segments", "segmentation", "segments"),
        ]
    folder = results(dataset.name, network.name, volume)
    return [
        ViewLayerSource(kind=kind, path=f"{folder}/{store}.zarr", array=array)
        for kind, store, array in arrays
    ]


def batch_layers(snapshot: Path, network: NetworkSettings) -> list[ViewLayerSource]:
    """Viewer layers of a snapshot of a training: its arrays, raw first."""
    heads = [f"{kind}_{head}" for head in head_names(network) for kind in ("gt", "pred")]
    names = ["raw", "labels", "labels_mask", PRETRAINED_LSDS, *heads]
    return [_batch_layer(snapshot, name) for name in names if (snapshot / name).is_dir()]


def _batch_layer(snapshot: Path, name: str) -> ViewLayerSource:
    kind = BATCH_LAYERS.get(name) or HEAD_LAYERS.get(name.split("_")[1], "boundary")
    # Images of some families are whitened floats; the viewer draws [0, 1].
    is_image = name == "raw" and _dtype(snapshot / name) != "|u1"
    more: dict[str, Any] = {"normalize": WHOLE_RANGE} if is_image else {}
    return ViewLayerSource(kind=kind, name=name, path=str(snapshot), array=name, **more)


def _dtype(array: Path) -> str:
    """The type of a zarr array's values, as its metadata name it."""
    return str(json_if_intact(array / ".zarray").get("dtype"))


def _view_job(planner: Planner, layers: list[ViewLayerSource], **served: Any) -> Job:
    """A view of these layers; `served`: more that the served viewer shows, if it exists."""
    view = planner.config.view
    settings = ViewSettings(
        bind_address=view.bind_address,
        port=view.port,
        lsd_channels=view.lsd_channels,
        layers=tuple(layers),
        **served,
    )
    return Job(settings, prerequisites=layer_files(layers))


def view_data_job(planner: Planner, dataset: str) -> Job:
    """Shows the first training volume, or, without any, the last that is predicted."""
    data = planner.dataset(dataset)
    volume = (volumes_of(data.train)[:1] or predicted(data)[-1:])[0]
    return _view_job(planner, data_layers(data, volume))


def view_job(planner: Planner, dataset: str, network: str) -> Job:
    """Shows data and results of the last predicted volume, or sections before and after."""
    experiment = planner.experiment("view", dataset, network)
    data, net = experiment.dataset, experiment.network
    if family_of(net).aligns:
        return _view_job(planner, align.layers(planner.config, data, net))
    volume = predicted(data)[-1]
    layers = data_layers(data, volume) + result_layers(data, net, volume)
    return _view_job(
        planner,
        layers,
        meshes=results(data.name, net.name, volume, "precomputed/segments"),
        errors=ErrorsSource(path=results(data.name, net.name, "errors.json"), volume=volume),
    )


def view_batch_job(planner: Planner, dataset: str, network: str) -> Job:
    """Shows a batch of a training, as it was at one of its iterations."""
    experiment = planner.experiment("view_batch", dataset, network)
    config, name = planner.config, f"{dataset}_{network}"
    training = described_training(planner, dataset, network)
    snapshot = find_snapshot(training, Path(WORK[config.engine]), name, config.batch)
    return _view_job(planner, batch_layers(snapshot, experiment.network))


def _picture(planner: Planner, name: str = "view.png", served: str = "serve.done") -> str:
    return served if planner.config.serve else name


@data_target("view_data")
def data_picture(planner: Planner, dataset: str) -> list[str]:
    """The picture of a dataset."""
    check_verb(planner.dataset(dataset), "view_data")
    planner.check_data(dataset)
    return [results(dataset, _picture(planner))]


@pair_target("view")
def result_picture(planner: Planner, dataset: str, network: str) -> list[str]:
    """The picture of a network's results."""
    planner.experiment("view", dataset, network)
    return [results(dataset, network, _picture(planner))]


@pair_target("view_batch")
def batch_picture(planner: Planner, dataset: str, network: str) -> list[str]:
    """The picture of a batch of a training."""
    view_batch_job(planner, dataset, network)  # refuses here: a picture may be left of another one
    return [results(dataset, network, _picture(planner, "view_batch.png", "serve_batch.done"))]
