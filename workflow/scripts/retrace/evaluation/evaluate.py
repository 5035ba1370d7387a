"""Scores the test entries at the threshold that was chosen on the validation entries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import StateError
from retrace.evaluation import untrained
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.curve import agglomerated, threshold_curve
from retrace.evaluation.dataset import open_ground_truth, open_raw
from retrace.evaluation.error_list import node_errors, voxel_errors
from retrace.evaluation.error_shares import SHARE
from retrace.evaluation.inputs import ScoringInputs, counted_unit, open_fragments, skeleton_sets
from retrace.evaluation.mincut import mincut
from retrace.evaluation.node_segments import NodeSegments, covered_nodes, sample_nodes
from retrace.evaluation.plots import curve_rows
from retrace.evaluation.scores import CONVENTION, score, skeleton_scores
from retrace.evaluation.skeletons import Skeletons
from retrace.files import read_parsed
from retrace.planning.score_settings import ScoreSettings
from retrace.planning.scored_dataset import ScoredDataset, ScoredEntry
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list
from retrace.segmentation.region_graph import RegionGraph
from retrace.storage.volumes import Volume, open_volume

CURVE_NOTE = "scores of the test volume at every threshold; not used to choose the threshold"

BEST_NOTE = (
    "every fragment joined to the truth it overlaps most: about the best that any agglomeration "
    "of these fragments could reach"
)

ONE_NOTE = "everything as one segment: what no segmentation at all scores"

UNTRAINED_NOTE = (
    "watershed of smoothed raw on the same voxels; parameters of the least VOI sum "
    "on the validation entries"
)


def _chosen_threshold(content: Any) -> tuple[float, dict[str, Any]]:
    """A threshold, and how it was chosen, from the content of a file."""
    chosen = {"threshold_rule": content["rule"], "threshold_chosen_on": content["chosen_on"]}
    return float(content["threshold"]), chosen


@dataclass(frozen=True)
class Evaluation:
    """Scores the test entries of a dataset."""

    settings: ScoreSettings
    inputs: ScoringInputs

    @cached_property
    def thresholds(self) -> list[float]:
        """The thresholds of the curves."""
        return threshold_list(*self.settings.thresholds)

    def score(self, threshold_file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of evaluation.json and of errors.json.

        `threshold_file`: the chosen threshold.
        """
        dataset = self.settings.dataset
        threshold, chosen = read_parsed(threshold_file, _chosen_threshold)
        entries = dataset.entries("test")
        volumes, errors = {}, {}
        for entry in progress(entries, len(entries), "score", "volumes"):
            volumes[entry.name], errors[entry.name] = self.score_entry(entry, threshold)
        if self.settings.untrained:
            references = score_untrained(dataset, self.inputs)
            for result, reference in zip(volumes.values(), references, strict=True):
                result["untrained_watershed"] = reference
        shared = {"dataset": dataset.name, "threshold": threshold}
        origin = self.inputs.origin(self.settings, threshold_file)
        scores = {
            **shared,
            **chosen,
            "convention": CONVENTION,
            "volumes": volumes,
            "origin": origin,
        }
        return scores, {**shared, "convention": SHARE, "volumes": errors, "origin": origin}

    def score_entry(
        self, entry: ScoredEntry, threshold: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """All scores of one test entry at the chosen threshold, and its largest errors.

        Raises StateError if the segments are not those of the fragments at this threshold.
        """
        dataset, inputs = self.settings.dataset, self.inputs
        store = inputs.fragments_of(entry)
        segments = open_volume(inputs.segmentation_of(entry), "segments")
        graph, fragments = inputs.graph_of(entry), open_fragments(store)
        of_fragments, counted = inputs.count(dataset, entry, [fragments, segments])
        scores = score(counted.table)
        expected = score(agglomerated(of_fragments.table, graph, threshold))
        if abs(scores["voi_sum"] - expected["voi_sum"]) > 1e-9:
            raise StateError(
                f"{segments.name} is not {store} at threshold {threshold:g}; delete it and run "
                "segment again"
            )
        one_segment = counted.table.relabeled(np.zeros_like(counted.table.segments))
        majority = of_fragments.table.majority()
        curve = threshold_curve(of_fragments.table, graph, self.thresholds)
        result = {
            "volume": entry.volume,
            **scores.as_dict(),
            "threshold": threshold,
            "convention": CONVENTION,
            "counted": counted_unit(dataset, entry),
            **counted.coverage(),
            "roi_nm": entry.roi_as_dict(),
            "fragments": score(of_fragments.table).as_dict(),
            "best_possible": {**score(majority).as_dict(), "note": BEST_NOTE},
            "one_segment": {**score(one_segment).as_dict(), "note": ONE_NOTE},
            "curve": curve_rows(self.thresholds, curve),
            "curve_note": CURVE_NOTE,
        }
        lists = self.voxel_errors(entry, segments, counted.table)
        for key, skeletons in skeleton_sets(entry, fragments).items():
            at_nodes = sample_nodes(fragments, skeletons)
            covered = int(covered_nodes(fragments, skeletons).sum())
            scored = self.score_skeletons(skeletons, at_nodes, graph, threshold)
            result[key] = {**scored, "nodes_covered": covered}
            nodes = NodeSegments(skeletons, graph.segments(at_nodes, threshold))
            lists[key] = node_errors(nodes, self.settings.errors)
        return result, {"volume": entry.volume, "roi_nm": entry.roi_as_dict(), "lists": lists}

    def voxel_errors(
        self, entry: ScoredEntry, segments: Volume, table: Contingency
    ) -> dict[str, Any]:
        """The largest errors of the voxels of an entry, as `voxels`; none without labels."""
        if not self.settings.dataset.has_labels(entry):
            return {}
        ground_truth = open_ground_truth(self.settings.dataset, entry, self.inputs.masks)
        count, threads = self.settings.errors, self.inputs.threads
        return {"voxels": voxel_errors(table, segments, ground_truth, count, threads=threads)}

    def score_skeletons(
        self, skeletons: Skeletons, at_nodes: np.ndarray, graph: RegionGraph, threshold: float
    ) -> dict[str, Any]:
        """Skeleton scores at the chosen threshold and at all; the min-cut metric if configured.

        `at_nodes`: the fragment at each node.
        """
        merge_threshold = self.settings.merge_threshold

        def at(value: float) -> dict[str, float]:
            segments = graph.segments(at_nodes, value)
            return skeleton_scores(NodeSegments(skeletons, segments, merge_threshold))

        curve = [{"threshold": value, **at(value)} for value in self.thresholds]
        result = {**at(threshold), "merge_threshold": merge_threshold, "curve": curve}
        if self.settings.compute_mincut:
            cut = mincut(skeletons, at_nodes, graph, threshold, merge_threshold)
            result["min_cut"] = cut.as_dict()
        return result


def score_untrained(dataset: ScoredDataset, inputs: ScoringInputs) -> list[dict[str, Any]]:
    """The scores of an untrained watershed for each test entry, or why there are none."""
    splits = [dataset.entries("validation"), dataset.entries("test")]
    if not all(dataset.has_labels(entry) for entries in splits for entry in entries):
        return [{"note": "no labels to choose the watershed's parameters on"} for _ in splits[1]]
    validation, test = ([_region(dataset, e, inputs) for e in entries] for entries in splits)
    reason = untrained.too_large([*validation, *test])
    if reason is not None:
        return [{"note": reason} for _ in test]
    parameters = untrained.choose_parameters(validation)
    return [
        {
            **untrained.score_region(region, parameters).as_dict(),
            "parameters": parameters.as_dict(),
            "note": UNTRAINED_NOTE,
        }
        for region in test
    ]


def _region(
    dataset: ScoredDataset, entry: ScoredEntry, inputs: ScoringInputs
) -> untrained.WatershedRegion:
    ground_truth = open_ground_truth(dataset, entry, inputs.masks)
    fragments = open_fragments(inputs.fragments_of(entry))
    box = ground_truth.box.intersect(fragments.box)
    return untrained.WatershedRegion(open_raw(dataset, entry), ground_truth, box)
