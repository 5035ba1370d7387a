"""Jobs that score a segmentation, a boundary map or classes."""

from __future__ import annotations

from collections.abc import Sequence

from retrace.config.dataset_model import Dataset
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import (
    interior_map,
)
from retrace.config.splits import scorable
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import Settings
from retrace.job import Files, Job
from retrace.planning.choices import without
from retrace.planning.experiment import Planner
from retrace.planning.paths import (
    manifest,
    mask_store,
    mask_stores,
    result_stores,
    results,
    skeleton_files,
    volume_files,
    volumes_of,
)
from retrace.planning.targets import pair_target
from retrace.storage.shards import shard_names


def scored_dataset(dataset: Dataset, splits: Sequence[str], parts: Sequence[str]) -> Settings:
    """The part of a dataset that scoring reads: entries with ground truth, and their volumes."""
    entries = {split: scorable(dataset, split) for split in splits}
    used = volumes_of(entry for split in splits for entry in entries[split])
    all_parts = {v: dataset["volumes"][v] for v in used}
    volumes = {v: {p: all_parts[v][p] for p in parts if p in all_parts[v]} for v in used}
    return {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": volumes,
        **{split: [without(e, "probability") for e in entries[split]] for split in splits},
    }


def count_settings(dataset: Dataset, split: str) -> Settings:
    """What `evaluate.py count` reads: the entries of one split and their labels."""
    return {"dataset": scored_dataset(dataset, [split], ["labels"])}


def choose_settings(config: WorkflowConfig, dataset: Dataset) -> Settings:
    """What `evaluate.py choose` reads: the validation entries only."""
    return {
        "dataset": scored_dataset(dataset, ["validation"], ["labels"]),
        "thresholds": config["segment"]["thresholds"],
    }


def score_settings(config: WorkflowConfig, dataset: Dataset) -> Settings:
    """What `evaluate.py score` reads."""
    compute_mincut = config["evaluate"]["compute_mincut"]
    if compute_mincut is None:
        compute_mincut = (dataset.get("paper") or {}).get("compute_mincut")
    return {
        "dataset": scored_dataset(dataset, ["validation", "test"], ["raw", "labels"]),
        "thresholds": config["segment"]["thresholds"],
        **without(config["evaluate"], "boundary_thresholds"),
        "compute_mincut": bool(compute_mincut),
    }


def boundary_settings(
    config: WorkflowConfig, dataset: Dataset, network: NetworkSettings
) -> Settings:
    """What evaluate_boundaries.py reads: the labelled entries of validation and test."""
    splits = ("validation", "test")
    content = scored_dataset(dataset, splits, ["labels"])
    for split in splits:
        labelled = [e for e in content[split] if "labels" in content["volumes"][e["volume"]]]
        content[split] = [without(e, "skeletons") for e in labelled]
    return {
        "dataset": content,
        "array": interior_map(network),
        "grow_boundary": network["grow_boundary"],
        "thresholds": config["evaluate"]["boundary_thresholds"],
    }


def class_settings(dataset: Dataset, network: NetworkSettings) -> Settings:
    """What evaluate_classes.py reads: the labelled entries of test."""
    content = scored_dataset(dataset, ("test",), ["raw", "labels"])
    labelled = [e for e in content["test"] if "labels" in content["volumes"][e["volume"]]]
    keys = ("grow_boundary", "labels_are_classes", "n_lab")
    return {
        "dataset": {**content, "test": [without(e, "skeletons") for e in labelled]},
        **{key: network[key] for key in keys},
    }


def nodes_settings(config: WorkflowConfig, dataset: Dataset) -> Settings:
    """What `evaluate.py nodes` reads: the test entries and the thresholds."""
    return {
        "dataset": scored_dataset(dataset, ["test"], []),
        "thresholds": config["segment"]["thresholds"],
    }


def scored_volumes(planner: Planner, dataset: str, network: str, split: str) -> list[str]:
    """The volumes of a split that have ground truth, of a network that is segmented."""
    planner.experiment("segment", dataset, network)
    return volumes_of(scorable(planner.dataset(dataset), split))


def _tables(
    planner: Planner, dataset: str, network: str, split: str, array: str
) -> dict[str, list[str]]:
    """Per volume the tables of all its shards; empty if a volume is one job.

    Volumes with skeletons alone have none: skeleton nodes are few and are counted at once.
    """
    count = planner.config["shards"]
    if count == 1:
        return {}
    volumes = planner.dataset(dataset)["volumes"]
    return {
        volume: [
            results(dataset, network, volume, f"shards/{split}_{array}_{shard}.npz")
            for shard in shard_names(count)
        ]
        for volume in scored_volumes(planner, dataset, network, split)
        if "labels" in volumes[volume]
    }


def count_job(
    planner: Planner,
    dataset: str,
    network: str,
    volume: str,
    split: str,
    array: str,
    shard: str,
) -> Job:
    """Counts how often a segment and a label meet, in one shard of the blocks."""
    data = planner.dataset(dataset)
    name = "fragments" if array == "fragments" else "segmentation"
    store = results(dataset, network, volume, f"{name}.zarr")
    masks = {volume: mask_store(data, volume)}
    where = {"volume": volume, "split": split, "array": array}
    labels = volume_files(data, [volume], ["labels", "labels_mask"])
    waits = [manifest(store), *labels]
    return Job(
        {**count_settings(data, split), **where},
        {"store": store, "masks": masks},
        waits,
        {"shard": shard},
    )


def choose_job(planner: Planner, dataset: str, network: str) -> Job:
    """Chooses the threshold of the least VOI on the validation entries."""
    data = planner.dataset(dataset)
    volumes = scored_volumes(planner, dataset, network, "validation")
    files = volume_files(data, volumes, ["labels"]) + skeleton_files(data, "validation")
    fragments = result_stores(dataset, network, volumes, "fragments")
    inputs: dict[str, Files] = {
        "fragments": fragments,
        "masks": mask_stores(data, volumes),
        "fragment_tables": _tables(planner, dataset, network, "validation", "fragments"),
    }
    return Job(choose_settings(planner.config, data), inputs, files)


def score_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores the test entries at the chosen threshold.

    Of the validation entries the untrained watershed is scored, which chooses its own threshold.
    """
    data = planner.experiment("evaluate", dataset, network).dataset
    tested = scored_volumes(planner, dataset, network, "test")
    both = [*scored_volumes(planner, dataset, network, "validation"), *tested]
    volumes = list(dict.fromkeys(both))
    inputs: dict[str, Files] = {
        "fragments": result_stores(dataset, network, volumes, "fragments"),
        "segmentation": result_stores(dataset, network, tested, "segmentation"),
        "masks": mask_stores(data, volumes),
        "fragment_tables": _tables(planner, dataset, network, "test", "fragments"),
        "segment_tables": _tables(planner, dataset, network, "test", "segments"),
        "threshold_file": results(dataset, network, "threshold.json"),
    }
    files = volume_files(data, volumes) + skeleton_files(data, "test")
    return Job(score_settings(planner.config, data), inputs, files)


def boundaries_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores a boundary map on the labelled entries of validation and test."""
    experiment = planner.experiment("evaluate", dataset, network)
    settings = boundary_settings(planner.config, experiment.dataset, experiment.network)
    entries = settings["dataset"]
    volumes = volumes_of([*entries["validation"], *entries["test"]])
    return _voxelwise_job(experiment.dataset, network, settings, volumes, ["labels"])


def classes_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores classes of voxels on the labelled entries of test."""
    experiment = planner.experiment("evaluate", dataset, network)
    settings = class_settings(experiment.dataset, experiment.network)
    volumes = volumes_of(settings["dataset"]["test"])
    return _voxelwise_job(experiment.dataset, network, settings, volumes, ["raw", "labels"])


def _voxelwise_job(
    data: Dataset, network: str, settings: Settings, volumes: Sequence[str], parts: Sequence[str]
) -> Job:
    """Scores predictions of volumes without segmentation; `parts` of the volumes are read too."""
    predictions = result_stores(data["name"], network, volumes, "prediction")
    manifests = [manifest(store) for store in predictions.values()]
    inputs = {"prediction": predictions, "masks": mask_stores(data, volumes)}
    return Job(settings, inputs, [*manifests, *volume_files(data, volumes, parts)])


def nodes_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes the segment of each skeleton node at every threshold."""
    data = planner.dataset(dataset)
    fragments = results(dataset, network, volume, "fragments.zarr")
    inputs = {
        "fragments": fragments,
        "threshold_file": results(dataset, network, "threshold.json"),
    }
    settings = {**nodes_settings(planner.config, data), "volume": volume}
    return Job(settings, inputs, [manifest(fragments), *skeleton_files(data, "test")])


@pair_target("evaluate")
def evaluation(planner: Planner, dataset: str, network: str) -> list[str]:
    """The scores of a network."""
    planner.experiment("evaluate", dataset, network)
    return [results(dataset, network, "evaluation.json")]
