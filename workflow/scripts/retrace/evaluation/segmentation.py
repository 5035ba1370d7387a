"""Scores of segmentations: thresholds, entries, skeletons."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import ConfigError, StateError
from retrace.evaluation import untrained
from retrace.evaluation.counting import Counted, Truth, check_scored, count_volumes
from retrace.evaluation.curve import (
    RegionGraph,
    agglomerated,
    best,
    open_region_graph,
    pooled,
    threshold_curve,
)
from retrace.evaluation.ground_truth import (
    Entry,
    has_labels,
    listed_entries,
    open_in_dataset,
    read_entries,
    read_truth,
)
from retrace.evaluation.mincut import mincut
from retrace.evaluation.plots import curve_rows, plot_evaluation, table
from retrace.evaluation.scores import CONVENTION, score
from retrace.evaluation.skeletons import (
    Skeletons,
    count_nodes,
    open_skeletons,
    sample_nodes,
    skeleton_scores,
)
from retrace.files import atomic_write, read_json
from retrace.progress import progress
from retrace.remote.addresses import is_address
from retrace.segmentation.lut import threshold_list
from retrace.storage.manifest import check_manifest
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import OpenedVolumes, Volume, open_volume

CURVE_NOTE = "scores of the test volume at every threshold; not used to choose the threshold"


BEST_NOTE = (
    "every fragment joined to the truth it overlaps most: about the best that any agglomeration "
    "of these fragments could reach"
)


ONE_NOTE = "everything as one segment: what no segmentation at all scores"


@dataclass(frozen=True)
class Inputs:
    """What the command line gives: stores by volume, and how many threads count."""

    fragments: dict[str, Path]
    masks: dict[str, Path]
    segmentation: dict[str, Path]
    threads: int
    tables: dict[str, Counted]
    """Counted already: by array and entry."""
    table_files: list[Path] = field(default_factory=list)
    opened: OpenedVolumes = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def origin(self, settings: dict[str, Any], *files: Path) -> dict[str, Any]:
        """What the scores were made of: all volumes opened so far, tables, skeletons, `files`."""
        tests = [
            e.skeletons for key in ("validation", "test") for e in listed_entries(settings, key)
        ]
        paths = [s["path"] for s in tests if s and not is_address(s["path"])]
        read = [*files, *self.table_files, *map(Path, paths)]
        return origin_of_opened(self.opened, read, settings, time.monotonic() - self.begun)

    def count(self, volume: Volume, truth: Truth, entry: Entry) -> Counted:
        """Contingency of an array with the truth of an entry, read or counted now."""
        counted = self.tables.get(f"{Path(volume.name).name} {entry.name}")
        if counted is None:
            return count_volumes(volume, truth, threads=self.threads)
        check_scored(counted, volume, truth)
        return counted


def skeleton_sets(entry: Entry, fragments: Volume) -> dict[str, Skeletons]:
    """`skeletons`: the parts inside the scored box; `skeletons_masked`: the published parts."""
    if entry.skeletons is None:
        return {}
    box = fragments.box.to_nm(fragments.voxel_size_nm)
    return open_skeletons(entry.skeletons, box.intersect(entry.roi_nm) if entry.roi_nm else box)


def count(
    settings: dict[str, Any], entry: Entry, inputs: Inputs, segmentations: Sequence[Volume]
) -> list[Counted]:
    """Each segmentation's table of voxels with labels, or of skeleton nodes without any.

    Of skeletons the masked ones count where there are some: the paper's main numbers.
    """
    if has_labels(settings, entry) or entry.skeletons is None:
        truth = read_truth(settings, entry, inputs.masks)
        return [inputs.count(s, truth, entry) for s in segmentations]
    *_, chosen = skeleton_sets(entry, segmentations[0]).values()
    return [count_nodes(s, chosen) for s in segmentations]


def _counted_unit(settings: dict[str, Any], entry: Entry) -> str:
    return "voxels" if has_labels(settings, entry) else "skeleton nodes"


def _store(stores: dict[str, Path], volume: str, option: str) -> Path:
    if volume not in stores:
        raise ConfigError(f"no --{option} for volume {volume!r}; add --{option} {volume}=PATH")
    check_manifest(stores[volume])
    return stores[volume]


def _coverage(counted: Counted) -> dict[str, int]:
    return {"scored_voxels": counted.scored_voxels, "label_voxels": counted.label_voxels}


def _roi(entry: Entry) -> dict[str, Any] | None:
    if entry.roi_nm is None:
        return None
    return {"offset": list(entry.roi_nm.offset), "shape": list(entry.roi_nm.shape)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def choose(settings: dict[str, Any], inputs: Inputs, output: Path) -> None:
    """Writes the threshold of the least VOI sum on the validation entries, and the whole table."""
    thresholds = threshold_list(*settings["thresholds"])
    entries = read_entries(settings, "validation")
    curves, chosen_on = [], []
    for entry in progress(entries, len(entries), "choose", "volumes"):
        store = _store(inputs.fragments, entry.volume, "fragments")
        (counted,) = count(settings, entry, inputs, [open_volume(store, "fragments")])
        curves.append(threshold_curve(counted, open_region_graph(store), thresholds))
        unit = _counted_unit(settings, entry)
        place = {"volume": entry.volume, "roi_nm": _roi(entry), "counted": unit}
        chosen_on.append({**place, **_coverage(counted)})
    together = pooled(curves)
    threshold = best(thresholds, together)
    at = thresholds.index(threshold)
    content = {
        "threshold": threshold,
        "rule": "least VOI sum over the validation entries, weighted by scored voxels",
        **together[at].as_dict(),
        "chosen_on": chosen_on,
        "convention": CONVENTION,
        "table": curve_rows(thresholds, together),
        "origin": inputs.origin(settings),
    }
    _write_json(output, content)
    print(table({f"validation at {threshold:g}": content}), flush=True)


def score_entry(
    settings: dict[str, Any], entry: Entry, inputs: Inputs, threshold: float
) -> dict[str, Any]:
    """All scores of one test entry at the chosen threshold."""
    store = _store(inputs.fragments, entry.volume, "fragments")
    segments = open_volume(_store(inputs.segmentation, entry.volume, "segmentation"), "segments")
    graph = open_region_graph(store)
    both = [open_volume(store, "fragments"), segments]
    fragments, counted = count(settings, entry, inputs, both)
    scores = score(counted.table)
    expected = score(agglomerated(fragments.table, graph, threshold))
    if abs(scores.voi_sum - expected.voi_sum) > 1e-9:
        raise StateError(
            f"{segments.name} is not {store} at threshold {threshold:g}; delete it and run segment "
            "again"
        )
    thresholds = threshold_list(*settings["thresholds"])
    one_segment = counted.table.relabeled(np.zeros_like(counted.table.segments))
    result = {
        "volume": entry.volume,
        **scores.as_dict(),
        "threshold": threshold,
        "convention": CONVENTION,
        "counted": _counted_unit(settings, entry),
        **_coverage(counted),
        "roi_nm": _roi(entry),
        "fragments": score(fragments.table).as_dict(),
        "best_possible": {**score(fragments.table.majority()).as_dict(), "note": BEST_NOTE},
        "one_segment": {**score(one_segment).as_dict(), "note": ONE_NOTE},
        "curve": curve_rows(thresholds, threshold_curve(fragments, graph, thresholds)),
        "curve_note": CURVE_NOTE,
    }
    for key, skeletons in skeleton_sets(entry, both[0]).items():
        result[key] = score_skeletons(settings, skeletons, both[0], graph, threshold)
    return result


def score_skeletons(
    settings: dict[str, Any],
    skeletons: Skeletons,
    fragments: Volume,
    graph: RegionGraph,
    threshold: float,
) -> dict[str, Any]:
    """Run lengths at the chosen and at all thresholds; the min-cut metric if asked for."""
    at_nodes = sample_nodes(fragments, skeletons)
    merge_threshold = int(settings.get("merge_threshold") or 1)

    def at(value: float) -> dict[str, float]:
        return skeleton_scores(skeletons, graph.segments(at_nodes, value), merge_threshold)

    curve = [{"threshold": t, **at(t)} for t in threshold_list(*settings["thresholds"])]
    result = {**at(threshold), "merge_threshold": merge_threshold, "curve": curve}
    if settings.get("compute_mincut"):
        cut = mincut(skeletons, at_nodes, graph, threshold, merge_threshold)
        result["min_cut"] = cut.as_dict()
    return result


def _region(settings: dict[str, Any], entry: Entry, inputs: Inputs) -> untrained.Region:
    dataset = settings["dataset"]
    truth = read_truth(settings, entry, inputs.masks)
    raw = open_in_dataset(dataset, dataset["volumes"][entry.volume]["raw"])
    store = _store(inputs.fragments, entry.volume, "fragments")
    return untrained.Region(raw, truth, truth.box.intersect(open_volume(store, "fragments").box))


def score_untrained(settings: dict[str, Any], inputs: Inputs) -> list[dict[str, Any]]:
    """The untrained watershed's scores per test entry, or the reason why there are none."""
    entries = [read_entries(settings, split) for split in ("validation", "test")]
    if not all(has_labels(settings, entry) for split in entries for entry in split):
        return [{"note": "no labels to choose the watershed's parameters on"} for _ in entries[1]]
    validation, test = ([_region(settings, e, inputs) for e in split] for split in entries)
    reason = untrained.too_large([*validation, *test])
    if reason is not None:
        return [{"note": reason} for _ in test]
    chosen = untrained.choose_parameters(validation)
    return [
        {
            **untrained.score_untrained(region, chosen).as_dict(),
            "parameters": chosen.as_dict(),
            "note": "watershed of smoothed raw on the same voxels; parameters of the least VOI sum "
            "on the validation entries",
        }
        for region in test
    ]


def score_all(
    settings: dict[str, Any], inputs: Inputs, threshold_file: Path, output: Path, plot: Path | None
) -> None:
    """Writes the evaluation of all test entries and prints a small table."""
    chosen = read_json(threshold_file)
    entries = read_entries(settings, "test")
    volumes = {
        entry.name: score_entry(settings, entry, inputs, float(chosen["threshold"]))
        for entry in progress(entries, len(entries), "score", "volumes")
    }
    if settings.get("untrained", True):
        for result, yardstick in zip(
            volumes.values(), score_untrained(settings, inputs), strict=True
        ):
            result["untrained_watershed"] = yardstick
    content = {
        "dataset": settings["dataset"]["name"],
        "threshold": chosen["threshold"],
        "threshold_chosen_on": chosen["chosen_on"],
        "convention": CONVENTION,
        "volumes": volumes,
        "origin": inputs.origin(settings, threshold_file),
    }
    if plot is not None:
        plot_evaluation(volumes, plot)
    _write_json(output, content)
    for name, result in volumes.items():
        print(f"\n{name} at threshold {result['threshold']:g}\n{table(_shown(result))}", flush=True)
        scored, labelled = result["scored_voxels"], result["label_voxels"]
        print(f"scored {scored} of {labelled} labelled {result['counted']}")


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    rows = {"segmentation": result}
    keys = ("fragments", "best_possible", "untrained_watershed", "one_segment")
    rows |= {key: result[key] for key in keys if "voi_sum" in result.get(key, {})}
    return rows
