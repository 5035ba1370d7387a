"""Jobs that segment a prediction."""

from __future__ import annotations

from retrace.config.dataset_model import Dataset
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.config.networks import head_names, interior_map
from retrace.config.schema import check
from retrace.config.workflow import WorkflowConfig, is_learned
from retrace.job import Job
from retrace.planning.experiment import Planner
from retrace.planning.paths import (
    CLASSIFIER,
    manifest,
    result_stores,
    results,
    tested,
    tissue_mask_files,
    volume_files,
    with_manifests,
)
from retrace.planning.segment_settings import SegmentationSettings
from retrace.planning.shards import execution_of
from retrace.planning.targets import pair_target


def segment_settings(
    config: WorkflowConfig,
    dataset: Dataset,
    network: VoxelNetworkSettings,
    volume: str,
) -> SegmentationSettings:
    """What `segment.py fragments` and `edges` read for one volume."""
    settings = config.segment.complete().without("thresholds").explicit()
    if settings["fragments_in_xy"] == "auto":
        settings["fragments_in_xy"] = not dataset.isotropic
    if dataset.paper is not None and dataset.paper.segment is not None:
        settings |= dataset.paper.segment.explicit()
    if "affs" in head_names(network):
        settings["neighborhood"] = network.neighborhood
    else:
        settings["boundary"] = interior_map(network)
    settings["zarr_format"] = config.zarr_format
    if (mask := dataset.volumes[volume].tissue_mask) is not None:
        settings["tissue_mask"] = mask
    if is_learned(config.segment.complete()):
        settings["raw"] = dataset.volumes[volume].raw
    return check(SegmentationSettings, settings, f"segmentation with network {network.name!r}")


def fragments_job(
    planner: Planner, dataset: str, network: str, volume: str, shard: str | None = None
) -> Job:
    """Over-segments a prediction, or one shard of it."""
    return _prediction_job(planner, dataset, network, volume, shard)


def edges_job(planner: Planner, dataset: str, network: str, volume: str, shard: str) -> Job:
    """Scores which fragments touch, in one shard of the blocks."""
    job = _prediction_job(planner, dataset, network, volume, shard)
    fragments = results(dataset, network, volume, "shards/fragments.zarr")
    waits = [*job.prerequisites, manifest(fragments)]
    return Job(job.settings, {**job.inputs, "fragments": fragments}, waits, job.execution)


def _prediction_job(
    planner: Planner, dataset: str, network: str, volume: str, shard: str | None
) -> Job:
    experiment = planner.experiment("segment", dataset, network)
    data, prediction = experiment.dataset, results(dataset, network, volume, "prediction.zarr")
    settings = segment_settings(planner.config, data, experiment.network, volume)
    image = volume_files(data, [volume], ["raw"]) if settings.raw else []
    return Job(
        settings,
        {"prediction": prediction},
        [manifest(prediction), *tissue_mask_files(data, volume), *image],
        execution_of(shard),
    )


def segment_job(
    planner: Planner, dataset: str, network: str, volume: str, shard: str | None = None
) -> Job:
    """Joins fragments at the chosen threshold, in a volume or in one shard of it."""
    inputs = graph_inputs(planner, dataset, network, volume)
    if shard is not None:
        inputs.pop("classifier", None)  # it has decided the table
        inputs["lut"] = results(dataset, network, volume, "shards/lut.zarr")
    waits = [manifest(inputs["fragments"])]
    return Job({}, inputs, waits, execution_of(shard))


def join_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Finds the segment of every fragment, for all shards."""
    inputs = graph_inputs(planner, dataset, network, volume)
    return Job({}, inputs, [manifest(inputs["fragments"])])


def graph_inputs(planner: Planner, dataset: str, network: str, volume: str) -> dict[str, str]:
    """What decides which fragments of a volume join."""
    return {
        "fragments": results(dataset, network, volume, "fragments.zarr"),
        "threshold_file": results(dataset, network, "threshold.json"),
        **classifier_of(planner, dataset, network),
    }


def classifier_of(planner: Planner, dataset: str, network: str) -> dict[str, str]:
    """The classifier of edges as an input, where the method needs one."""
    if not is_learned(planner.config.segment.complete()):
        return {}
    return {"classifier": results(dataset, network, CLASSIFIER)}


@pair_target("segment")
def segmentations(planner: Planner, dataset: str, network: str) -> list[str]:
    """The segmentations of the test volumes."""
    data = planner.experiment("segment", dataset, network).dataset
    stores = result_stores(dataset, network, tested(data), "segmentation")
    return with_manifests(stores.values())
