"""Chooses the agglomeration threshold on the validation entries."""

from __future__ import annotations

from typing import Any

from retrace.evaluation.curve import best_threshold, open_region_graph, pooled, threshold_curve
from retrace.evaluation.inputs import ScoringInputs, counted_unit, open_fragments
from retrace.evaluation.plots import curve_rows
from retrace.evaluation.scores import CONVENTION
from retrace.planning.score_settings import ThresholdSettings
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list


def choose_threshold(settings: ThresholdSettings, inputs: ScoringInputs) -> dict[str, Any]:
    """The content of threshold.json: the threshold of the smallest VOI sum, and all scores.

    Scores are averaged over the validation entries, weighted by their scored voxels.
    """
    dataset, thresholds = settings.dataset, threshold_list(*settings.thresholds)
    entries = dataset.entries("validation")
    curves, chosen_on = [], []
    for entry in progress(entries, len(entries), "choose", "volumes"):
        store = inputs.fragments_of(entry)
        (counted,) = inputs.count(dataset, entry, [open_fragments(store)])
        curves.append(threshold_curve(counted.table, open_region_graph(store), thresholds))
        unit = counted_unit(dataset, entry)
        place = {"volume": entry.volume, "roi_nm": entry.roi_as_dict(), "counted": unit}
        chosen_on.append({**place, **counted.coverage()})
    scores = pooled(curves)
    threshold = best_threshold(thresholds, scores)
    return {
        "threshold": threshold,
        "rule": "least VOI sum over the validation entries, weighted by scored voxels",
        **scores[thresholds.index(threshold)].as_dict(),
        "chosen_on": chosen_on,
        "convention": CONVENTION,
        "table": curve_rows(thresholds, scores),
        "origin": inputs.origin(settings),
    }
