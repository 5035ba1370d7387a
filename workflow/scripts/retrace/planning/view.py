"""Jobs that show data and results in neuroglancer."""

from __future__ import annotations

from retrace.config.compatibility import check_verb
from retrace.config.dataset_model import Dataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import BOUNDARY, head_names
from retrace.config.view_model import LayerKind, ViewLayerSource, ViewSettings
from retrace.job import Job
from retrace.planning import align
from retrace.planning.experiment import Planner
from retrace.planning.paths import layer_files, mask_store, predicted, results, volumes_of
from retrace.planning.targets import data_target, pair_target

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


def _view_job(planner: Planner, layers: list[ViewLayerSource]) -> Job:
    view = planner.config.view
    settings = ViewSettings(bind_address=view.bind_address, port=view.port, layers=tuple(layers))
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
    return _view_job(planner, data_layers(data, volume) + result_layers(data, net, volume))


def _picture(planner: Planner) -> str:
    return "serve.done" if planner.config.serve else "view.png"


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
