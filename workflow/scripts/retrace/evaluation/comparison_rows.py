"""The rows of a comparison: networks with scores and cost, and segmentations by others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrace.checkpoints.safetensors import read_metadata
from retrace.config.any_network import stored_network
from retrace.evaluation.comparison import SEGMENT_SCORES, NetworkCost, mean_scores, training_seconds
from retrace.evaluation.counting import count_labelled, count_volumes
from retrace.evaluation.coverage import LABELLED, SCORED, total_coverage
from retrace.evaluation.dataset import open_ground_truth
from retrace.evaluation.scores import score
from retrace.files import read_parsed
from retrace.formats.source import Source
from retrace.networks import build_network
from retrace.planning.scored_dataset import ScoredDataset
from retrace.storage.label_volumes import single_channel
from retrace.storage.volumes import open_source


def network_cost(
    model: Path, history: Mapping[str, Any], prediction: Mapping[str, Any]
) -> NetworkCost:
    """The cost of a network, from its model file, training.json and one prediction's manifest."""
    network = stored_network(read_metadata(model)["network"])
    module = build_network(network, device="meta")
    tile_shape = prediction.get("tile_shape")  # absent if the prediction was in shards
    tile = module.valid_shape(tile_shape or (64, 64, 64))
    voxels = math.prod(next(iter(prediction["arrays"].values()))["shape"][-3:])
    seconds = prediction["seconds"] if tile_shape else None
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        kflop_per_voxel=module.flop(tile) / math.prod(module.output_shape(tile)) / 1000,
        iterations=history["iterations"],
        training_s=training_seconds(history),
        prediction_voxels_per_s=voxels / seconds if seconds else None,
        prediction_peak_mb=prediction["peak_memory_mb"] if tile_shape else None,
    )


def network_row(
    name: str,
    family: str,
    metrics: Sequence[str],
    *,
    evaluation: Path,
    model: Path,
    history: Path,
    prediction: Path,
) -> dict[str, Any]:
    """The row of a network: its mean scores over the test entries, and its cost."""
    trained = read_parsed(history, lambda content: {**content, "iterations": content["iterations"]})
    cost = network_cost(model, trained, read_parsed(prediction, _predicted))
    scores, coverage = read_parsed(
        evaluation,
        lambda content: (
            mean_scores(content["volumes"], metrics),
            total_coverage(content["volumes"].values()),
        ),
    )
    return {"name": name, "family": family, **coverage, **scores, **asdict(cost)}


def _predicted(content: Any) -> dict[str, Any]:
    """What `network_cost` needs of a prediction's manifest."""
    shapes = {str(name): {"shape": [*array["shape"]]} for name, array in content["arrays"].items()}
    keys = ("seconds", "peak_memory_mb", "tile_shape")
    return {key: content[key] for key in keys if key in content} | {"arrays": shapes}


def other_row(
    name: str,
    sources: Mapping[str, Source],
    dataset: ScoredDataset,
    masks: Mapping[str, Path],
    threads: int,
) -> dict[str, Any]:
    """The row of a segmentation by others (sources by volume), scored on the same voxels.

    Test entries of volumes that it does not have count as labelled, and not as scored.
    """
    scores, covered = {}, []
    for entry in dataset.entries("test"):
        ground_truth = open_ground_truth(dataset, entry, masks)
        if entry.volume in sources:
            volume = single_channel(open_source(sources[entry.volume]))
            counted = count_volumes(volume, ground_truth, threads=threads)
            scores[entry.name] = score(counted.table).as_dict()
            covered.append(counted.coverage())
        else:
            covered.append({SCORED: 0, LABELLED: count_labelled(ground_truth, threads)})
    means = mean_scores(scores, SEGMENT_SCORES)
    return {"name": name, "family": "others", **total_coverage(covered), **means}
