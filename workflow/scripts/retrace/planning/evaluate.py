"""Jobs that score a segmentation, a boundary map or classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from retrace.config.dataset_model import Dataset, DatasetVolume
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.config.networks import interior_map
from retrace.config.splits import scorable
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.job import Files, Job
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
from retrace.planning.score_settings import (
    BoundaryMapSettings,
    ClassMapSettings,
    CountedArray,
    CountSettings,
    LearningSettings,
    NodeSettings,
    ScoreSettings,
    ThresholdSettings,
)
from retrace.planning.scored_dataset import ScoredDataset, ScoredSplit, ScoredVolume
from retrace.planning.segment import classifier_of, graph_inputs
from retrace.planning.targets import pair_target
from retrace.storage.shards import shard_names

Part = Literal["raw", "labels"]
"""A part of a volume that scoring reads."""


def scored_dataset(
    dataset: Dataset, splits: Sequence[ScoredSplit], parts: Sequence[Part]
) -> ScoredDataset:
    """The part of a dataset that scoring reads: entries with ground truth, and their volumes."""
    entries = {split: scorable(dataset, split) for split in splits}
    used = volumes_of(entry for split in splits for entry in entries[split])
    return ScoredDataset(
        name=dataset.name,
        voxel_size_nm=dataset.voxel_size_nm,
        background_ids=dataset.background_ids,
        volumes={v: _scored_volume(dataset.volumes[v], parts) for v in used},
        **{split: tuple(e.without("probability") for e in entries[split]) for split in splits},
    )


def _scored_volume(volume: DatasetVolume, parts: Sequence[Part]) -> ScoredVolume:
    sources = {part: getattr(volume, part) for part in parts}
    return ScoredVolume(**{part: source for part, source in sources.items() if source is not None})


def count_settings(
    dataset: Dataset, volume: str, split: ScoredSplit, array: CountedArray
) -> CountSettings:
    """What `evaluate.py count` reads: the entries of one split and their labels."""
    scored = scored_dataset(dataset, [split], ["labels"])
    return CountSettings(dataset=scored, volume=volume, split=split, array=array)


def choose_settings(config: WorkflowConfig, dataset: Dataset) -> ThresholdSettings:
    """What `evaluate.py choose` reads: the validation entries only."""
    scored = scored_dataset(dataset, ["validation"], ["labels"])
    return ThresholdSettings(
        dataset=scored,
        thresholds=config.segment.thresholds,
        threshold_rule=config.evaluate.threshold_rule,
    )


def score_settings(config: WorkflowConfig, dataset: Dataset) -> ScoreSettings:
    """What `evaluate.py score` reads."""
    compute_mincut = config.evaluate.compute_mincut
    if compute_mincut is None and dataset.paper is not None:
        compute_mincut = dataset.paper.compute_mincut
    return ScoreSettings(
        dataset=scored_dataset(dataset, ["validation", "test"], ["raw", "labels"]),
        thresholds=config.segment.thresholds,
        untrained=config.evaluate.untrained,
        merge_threshold=config.evaluate.merge_threshold,
        compute_mincut=bool(compute_mincut),
        errors=config.evaluate.errors,
    )


def boundary_settings(
    config: WorkflowConfig, dataset: Dataset, network: VoxelNetworkSettings
) -> BoundaryMapSettings:
    """What evaluate_boundaries.py reads: the labelled entries of validation and test."""
    scored = scored_dataset(dataset, ["validation", "test"], ["labels"])
    array = interior_map(network)
    if array is None:
        raise ConfigError(f"network {network.name!r} predicts no boundaries that can be scored")
    return BoundaryMapSettings(
        dataset=_labelled(scored, ["validation", "test"]),
        array=array,
        grow_boundary=network.grow_boundary,
        thresholds=config.evaluate.boundary_thresholds,
    )


def class_settings(dataset: Dataset, network: VoxelNetworkSettings) -> ClassMapSettings:
    """What evaluate_classes.py reads: the labelled entries of test."""
    return ClassMapSettings(
        dataset=_labelled(scored_dataset(dataset, ["test"], ["raw", "labels"]), ["test"]),
        grow_boundary=network.grow_boundary,
        labels_are_classes=network.labels_are_classes,
        n_lab=network.n_lab,
    )


def _labelled(dataset: ScoredDataset, splits: Sequence[ScoredSplit]) -> ScoredDataset:
    """The dataset with only the entries that have labels, without their skeletons."""
    labelled = {name for name, volume in dataset.volumes.items() if volume.labels is not None}
    entries: dict[str, Any] = {
        split: tuple(
            e.without("skeletons") for e in getattr(dataset, split) if e.volume in labelled
        )
        for split in splits
    }
    return dataset.model_copy(update=entries)


def nodes_settings(config: WorkflowConfig, dataset: Dataset, volume: str) -> NodeSettings:
    """What `evaluate.py nodes` reads: the test entries and the thresholds."""
    scored = scored_dataset(dataset, ["test"], [])
    return NodeSettings(dataset=scored, volume=volume, thresholds=config.segment.thresholds)


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
    count = planner.config.shards
    if count == 1:
        return {}
    volumes = planner.dataset(dataset).volumes
    return {
        volume: [
            results(dataset, network, volume, f"shards/{split}_{array}_{shard}.npz")
            for shard in shard_names(count)
        ]
        for volume in scored_volumes(planner, dataset, network, split)
        if volumes[volume].labels is not None
    }


def count_job(
    planner: Planner,
    dataset: str,
    network: str,
    volume: str,
    split: ScoredSplit,
    array: CountedArray,
    shard: str,
) -> Job:
    """Counts how often a segment and a label meet, in one shard of the blocks."""
    data = planner.dataset(dataset)
    name = "fragments" if array == "fragments" else "segmentation"
    store = results(dataset, network, volume, f"{name}.zarr")
    masks = {volume: mask_store(data, volume)}
    labels = volume_files(data, [volume], ["labels", "labels_mask"])
    waits = [manifest(store), *labels]
    return Job(
        count_settings(data, volume, split, array),
        {"store": store, "masks": masks},
        waits,
        {"shard": shard},
    )


def _validation_inputs(
    planner: Planner, dataset: str, network: str
) -> tuple[dict[str, Files], list[str]]:
    """The fragments and ground truth of the validation entries, and the files behind them."""
    data = planner.dataset(dataset)
    volumes = scored_volumes(planner, dataset, network, "validation")
    files = volume_files(data, volumes, ["labels"]) + skeleton_files(data, "validation")
    fragments = result_stores(dataset, network, volumes, "fragments")
    inputs: dict[str, Files] = {
        "fragments": fragments,
        "masks": mask_stores(data, volumes),
        "fragment_tables": _tables(planner, dataset, network, "validation", "fragments"),
    }
    return inputs, files


def choose_job(planner: Planner, dataset: str, network: str) -> Job:
    """Chooses the threshold on the validation entries."""
    inputs, files = _validation_inputs(planner, dataset, network)
    settings = choose_settings(planner.config, planner.dataset(dataset))
    return Job(settings, {**inputs, **classifier_of(planner, dataset, network)}, files)


def learn_job(planner: Planner, dataset: str, network: str) -> Job:
    """Trains the classifier of edges on the validation entries."""
    inputs, files = _validation_inputs(planner, dataset, network)
    scored = scored_dataset(planner.dataset(dataset), ["validation"], ["labels"])
    return Job(LearningSettings(dataset=scored), inputs, files)


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
        **classifier_of(planner, dataset, network),
    }
    files = volume_files(data, volumes) + skeleton_files(data, "test")
    return Job(score_settings(planner.config, data), inputs, files)


def boundaries_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores a boundary map on the labelled entries of validation and test."""
    experiment = planner.experiment("evaluate", dataset, network)
    settings = boundary_settings(planner.config, experiment.dataset, experiment.network)
    volumes = volumes_of([*settings.dataset.validation, *settings.dataset.test])
    return _voxelwise_job(experiment.dataset, network, settings, volumes, ["labels"])


def classes_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores classes of voxels on the labelled entries of test."""
    experiment = planner.experiment("evaluate", dataset, network)
    settings = class_settings(experiment.dataset, experiment.network)
    volumes = volumes_of(settings.dataset.test)
    return _voxelwise_job(experiment.dataset, network, settings, volumes, ["raw", "labels"])


def _voxelwise_job(
    data: Dataset,
    network: str,
    settings: BoundaryMapSettings | ClassMapSettings,
    volumes: Sequence[str],
    parts: Sequence[str],
) -> Job:
    """Scores predictions of volumes without segmentation; `parts` of the volumes are read too."""
    predictions = result_stores(data.name, network, volumes, "prediction")
    manifests = [manifest(store) for store in predictions.values()]
    inputs = {"prediction": predictions, "masks": mask_stores(data, volumes)}
    return Job(settings, inputs, [*manifests, *volume_files(data, volumes, parts)])


def nodes_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes the segment of each skeleton node at every threshold."""
    data = planner.dataset(dataset)
    inputs = graph_inputs(planner, dataset, network, volume)
    settings = nodes_settings(planner.config, data, volume)
    return Job(settings, inputs, [manifest(inputs["fragments"]), *skeleton_files(data, "test")])


@pair_target("evaluate")
def evaluation(planner: Planner, dataset: str, network: str) -> list[str]:
    """The scores of a network."""
    planner.experiment("evaluate", dataset, network)
    return [results(dataset, network, "evaluation.json")]
