"""Chooses the agglomeration threshold on the validation entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrace.evaluation.curve import agglomerated, pooled
from retrace.evaluation.inputs import ScoringInputs, counted_unit, open_fragments
from retrace.evaluation.plots import curve_rows
from retrace.evaluation.scores import CONVENTION, score
from retrace.evaluation.threshold_rules import DESCRIPTIONS, RULES, object_parts, pooled_parts
from retrace.planning.score_settings import ThresholdSettings
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list

OVER_ENTRIES = ", over the validation entries, weighted by scored voxels"


def choose_threshold(settings: ThresholdSettings, inputs: ScoringInputs) -> dict[str, Any]:
    """The content of threshold.json: the threshold that the rule chooses, and all scores.

    Scores are averaged over the validation entries, weighted by their scored voxels. The thresholds
    that the other rules would choose are stated, too.
    """
    dataset, thresholds = settings.dataset, threshold_list(*settings.thresholds)
    entries = dataset.entries("validation")
    curves, parts, chosen_on = [], [], []
    for entry in progress(entries, len(entries), "choose", "volumes"):
        store = inputs.fragments_of(entry)
        (counted,) = inputs.count(dataset, entry, [open_fragments(store)])
        graph = inputs.graph_of(entry)
        # Tables of large volumes are large, so that there is one at a time.
        tables = (agglomerated(counted.table, graph, value) for value in thresholds)
        rows = [(score(table), object_parts(table)) for table in tables]
        curves.append([scores for scores, _ in rows])
        parts.append(np.stack([part for _, part in rows]))
        unit = counted_unit(dataset, entry)
        place = {"volume": entry.volume, "roi_nm": entry.roi_as_dict(), "counted": unit}
        chosen_on.append({**place, **counted.coverage()})
    scores = pooled(curves)
    objects = pooled_parts(parts, [curve[0].voxels for curve in curves])
    chosen = {name: rule(objects) for name, rule in RULES.items()}
    row = chosen[settings.threshold_rule]
    return {
        "threshold": float(thresholds[row]),
        "rule": f"{DESCRIPTIONS[settings.threshold_rule]}{OVER_ENTRIES}",
        **scores[row].as_dict(),
        "threshold_by_rule": {name: float(thresholds[i]) for name, i in chosen.items()},
        "chosen_on": chosen_on,
        "convention": CONVENTION,
        "table": curve_rows(thresholds, scores),
        "origin": inputs.origin(settings),
    }
