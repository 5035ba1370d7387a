"""The steps of an evaluation as jobs: count, choose a threshold, score, and tables of nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from retrace.errors import DataError
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.coverage import coverage_text, is_partial
from retrace.evaluation.dataset import open_ground_truth
from retrace.evaluation.error_files import write_errors
from retrace.evaluation.evaluate import Evaluation
from retrace.evaluation.inputs import ScoringInputs, open_fragments, skeleton_sets, table_name
from retrace.evaluation.nodes import node_table, write_node_table
from retrace.evaluation.plots import plot_evaluation, scores_table
from retrace.evaluation.tables import save_tables
from retrace.evaluation.threshold import choose_threshold
from retrace.files import read_parsed, write_json
from retrace.planning.score_settings import (
    CountSettings,
    NodeSettings,
    ScoreSettings,
    ThresholdSettings,
)
from retrace.planning.scored_dataset import ScoredDataset, ScoredEntry, ScoredSplit
from retrace.progress import progress
from retrace.replacement import newest
from retrace.segmentation.lut import threshold_list
from retrace.segmentation.region_graph import load_region_graph
from retrace.storage.manifest import check_manifest, input_digest, write_manifest
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import writing

REFERENCES = ("fragments", "best_possible", "untrained_watershed", "one_segment")
"""Scores in evaluation.json that the table on the terminal shows for comparison."""


def _entries_of(dataset: ScoredDataset, split: ScoredSplit, volume: str) -> list[ScoredEntry]:
    return [entry for entry in dataset.entries(split) if entry.volume == volume]


def write_counts(
    settings: CountSettings,
    store: Path,
    masks: Mapping[str, Path],
    output: Path,
    threads: int = 1,
    shard: Shard = SINGLE_SHARD,
) -> None:
    """Writes the tables of one shard, for all entries of one volume in one split."""
    check_manifest(store)
    dataset, array = settings.dataset, settings.array
    volume = open_volume(store, array)
    entries = _entries_of(dataset, settings.split, settings.volume)
    tables = {}
    for entry in progress(entries, len(entries), "count", "entries"):
        ground_truth = open_ground_truth(dataset, entry, masks)
        tables[table_name(array, entry)] = count_volumes(
            volume, ground_truth, threads=threads, shard=shard
        )
    save_tables(output, shard, tables)


def write_threshold(settings: ThresholdSettings, inputs: ScoringInputs, output: Path) -> None:
    """Chooses the threshold on the validation entries, writes it and prints its scores."""
    content = choose_threshold(settings, inputs)
    write_json(output, content)
    print(scores_table({f"validation at {content['threshold']:g}": content}), flush=True)
    for entry in filter(is_partial, content["chosen_on"]):
        print(
            f"{entry['volume']}: scored {coverage_text(entry)} of its labelled {entry['counted']}"
        )


def write_scores(
    settings: ScoreSettings,
    inputs: ScoringInputs,
    threshold_file: Path,
    output: Path,
    plot: Path | None,
    errors_file: Path | None = None,
) -> None:
    """Scores the test entries, writes the evaluation and its plot, and prints a table.

    `errors_file`: where the list of the largest errors is written, and its other forms next to it.
    """
    content, errors = Evaluation(settings, inputs).score(threshold_file)
    if plot is not None:
        plot_evaluation(content["volumes"], plot)
    if errors_file is not None:
        write_errors(errors_file, errors)
    write_json(output, content)
    for name, result in content["volumes"].items():
        rows = {"segmentation": result}
        rows |= {key: result[key] for key in REFERENCES if "voi_sum" in result.get(key, {})}
        print(f"\n{name} at threshold {result['threshold']:g}\n{scores_table(rows)}", flush=True)
        print(f"scored of the labelled {result['counted']}: {coverage_text(result)}")


def write_node_tables(
    settings: NodeSettings,
    fragments: Path,
    threshold_file: Path,
    output: Path,
    classifier: Path | None = None,
) -> None:
    """Writes a table for each set of skeletons of the volume's test entries; the manifest last.

    Raises DataError if no node of a set is inside the scored region.
    """
    begin = time.monotonic()
    check_manifest(fragments)
    volume, graph = open_fragments(fragments), load_region_graph(fragments, classifier)
    threshold = read_parsed(threshold_file, lambda chosen: float(chosen["threshold"]))
    thresholds = threshold_list(*settings.thresholds)
    entries = _entries_of(settings.dataset, "test", settings.volume)
    with writing(output) as folder:
        for index, entry in enumerate(progress(entries, len(entries), "nodes", "entries"), 1):
            for key, skeletons in skeleton_sets(entry, volume).items():
                if not len(skeletons.skeleton):
                    raise DataError(f"no node of {key} lies inside {entry.name}; correct `roi_nm`")
                nodes = node_table(volume, skeletons, graph, thresholds, threshold)
                write_node_table(folder / f"{key}{f'_{index}' if index > 1 else ''}.npz", nodes)
    files = {path.name: input_digest(path) for path in sorted(newest(output).iterdir())}
    write_manifest(
        output,
        inputs=[fragments, threshold_file, *([classifier] if classifier else [])],
        settings=settings.plain(),
        seconds=time.monotonic() - begin,
        extra={"files": files},
    )
    print(f"[nodes] {output}: {', '.join(files)}", flush=True)
