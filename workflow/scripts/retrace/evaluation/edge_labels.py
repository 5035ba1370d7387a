"""Trains the classifier of edges on the labels of the validation entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrace.errors import ConfigError
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.inputs import ScoringInputs, open_fragments
from retrace.files import write_json
from retrace.planning.score_settings import LearningSettings
from retrace.planning.scored_dataset import ScoredEntry
from retrace.progress import progress
from retrace.segmentation.edge_classifier import EdgeClassifier, digest_of, save_classifier
from retrace.segmentation.edge_training import train_forest
from retrace.segmentation.region_graph import StoredFeatures, read_features

LEAST_LABELLED = 0.5
"""Share of the voxels of a fragment that must be labelled, so that its object is known."""


def labelled_edges(stored: StoredFeatures, table: Contingency) -> tuple[np.ndarray, np.ndarray]:
    """Rows (T,) int64 of the edges whose fragments have known objects, and whether they differ.

    `table`: labelled voxels of fragments and objects. The object of a fragment is the one with the
    most voxels in it.
    """
    order = np.lexsort((-table.counts, table.segments))
    ids, first = np.unique(table.segments[order], return_index=True)
    labelled = np.add.reduceat(table.counts[order], first) if len(ids) else np.empty(0)
    objects, inside = table.ground_truth[order][first], ids > 0
    rows = stored.ids.rows(ids[inside])
    known = labelled[inside] >= LEAST_LABELLED * stored.voxels[rows]
    object_of = np.zeros(stored.ids.total, np.uint64)
    object_of[rows[known]] = objects[inside][known]
    both = object_of[stored.ids.rows(stored.edges)]
    edges = np.flatnonzero((both > 0).all(axis=1))
    return edges, both[edges, 0] != both[edges, 1]


def write_classifier(settings: LearningSettings, inputs: ScoringInputs, output: Path) -> None:
    """Trains the classifier and writes it, with the out-of-bag scores of the edges it has seen.

    A JSON next to it states the number of edges, and what the classifier was computed from.

    ConfigError without labels; DataError where all labelled edges are of one kind.
    """
    dataset = settings.dataset
    entries = [entry for entry in dataset.entries("validation") if dataset.has_labels(entry)]
    if not entries:
        raise ConfigError(
            f"dataset {dataset.name!r} has no validation entry with labels, on which edges are "
            "learned; add one, or segment with another `method`"
        )
    counted = progress(entries, len(entries), "learn", "entries")
    labels = [_entry(settings, inputs, entry) for entry in counted]
    names = labels[0][0].table.names
    volumes: dict[str, tuple[StoredFeatures, np.ndarray, np.ndarray]] = {}
    for stored, rows, different in labels:
        key = digest_of(stored.edges, stored.table)
        if key in volumes:
            rows, different = _merged(volumes[key][1:], (rows, different))
        volumes[key] = stored, rows, different
    features = np.concatenate([s.table.values[rows] for s, rows, _ in volumes.values()])
    kinds = np.concatenate([different for *_, different in volumes.values()])
    forest, out_of_bag = train_forest(features, kinds, inputs.threads)
    ends = np.cumsum([len(rows) for _, rows, _ in volumes.values()])[:-1]
    scores = np.split(out_of_bag, ends)
    trained = {k: (v[1], part) for (k, v), part in zip(volumes.items(), scores, strict=True)}
    save_classifier(output, EdgeClassifier(forest, names, trained))
    right = float(np.mean((out_of_bag > 0.5) == kinds))
    facts = {"edges": len(kinds), "different": int(kinds.sum()), "right_out_of_bag": right}
    write_json(output.with_suffix(".json"), {**facts, "origin": inputs.origin(settings)})
    print(f"[learn] {len(kinds)} labelled edges; out of bag, {right:.1%} are on their side of 0.5")


def _entry(
    settings: LearningSettings, inputs: ScoringInputs, entry: ScoredEntry
) -> tuple[StoredFeatures, np.ndarray, np.ndarray]:
    store = inputs.fragments_of(entry)
    (counted,) = inputs.count(settings.dataset, entry, [open_fragments(store)])
    stored = read_features(store)
    return (stored, *labelled_edges(stored, counted.table))


def _merged(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The edges of two entries of one volume; of an edge of both, the first entry decides."""
    rows, kinds = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    unique, at = np.unique(rows, return_index=True)
    return unique, kinds[at]
