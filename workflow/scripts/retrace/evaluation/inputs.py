"""Inputs of scoring: stores of segmentations, tables that other jobs counted, and masks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.evaluation.counting import Counted, check_scored, count_nodes, count_together
from retrace.evaluation.dataset import open_ground_truth
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.skeleton_files import open_skeletons
from retrace.evaluation.skeletons import Skeletons
from retrace.evaluation.tables import read_tables
from retrace.planning.score_settings import LearningSettings, ScoreSettings, ThresholdSettings
from retrace.planning.scored_dataset import ScoredDataset, ScoredEntry
from retrace.remote.addresses import is_address
from retrace.segmentation.region_graph import RegionGraph, load_region_graph
from retrace.storage.manifest import check_manifest
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import OpenedVolumes, Volume, open_volume


@dataclass(frozen=True)
class ScoringInputs:
    """Stores and labels masks by volume, and how many threads read and count.

    `tables`: counted by other jobs, by array and entry (`fragments cube_1`).
    """

    fragments: Mapping[str, Path]
    masks: Mapping[str, Path]
    segmentations: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1
    tables: Mapping[str, Counted] = field(default_factory=dict)
    table_files: Sequence[Path] = ()
    classifier: Path | None = None
    """Of edges, where fragments have features of edges instead of scores."""
    opened: OpenedVolumes = field(default_factory=list)
    """All volumes that were opened so far."""
    begun: float = field(default_factory=time.monotonic)

    def origin(
        self, settings: LearningSettings | ThresholdSettings | ScoreSettings, *files: Path
    ) -> dict[str, Any]:
        """The origin of the scores: all that was read, the settings, and the cost."""
        paths = settings.dataset.skeleton_paths()
        local = [Path(path) for path in paths if not is_address(path)]
        read = [*files, *filter(None, [self.classifier]), *self.table_files, *local]
        seconds = time.monotonic() - self.begun
        return origin_of_opened(self.opened, read, settings.plain(), seconds)

    def fragments_of(self, entry: ScoredEntry) -> Path:
        """The store of fragments, after checking its manifest; ConfigError if there is none."""
        return _store(self.fragments, entry.volume, "fragments")

    def graph_of(self, entry: ScoredEntry) -> RegionGraph:
        """The region graph of an entry's volume."""
        return load_region_graph(self.fragments_of(entry), self.classifier)

    def segmentation_of(self, entry: ScoredEntry) -> Path:
        """The store of segments, after checking its manifest; ConfigError if there is none."""
        return _store(self.segmentations, entry.volume, "segmentation")

    def count(
        self, dataset: ScoredDataset, entry: ScoredEntry, segmentations: Sequence[Volume]
    ) -> list[Counted]:
        """The table of each segmentation: of labelled voxels, or without labels of skeleton nodes.

        Masked skeletons are used if there are any, as for the main numbers of the paper.
        """
        if dataset.has_labels(entry) or entry.skeletons is None:
            ground_truth = open_ground_truth(dataset, entry, self.masks)
            return self._count_voxels(segmentations, ground_truth, entry)
        chosen = self.scored_skeletons(entry, segmentations[0])
        return [count_nodes(segmentation, chosen) for segmentation in segmentations]

    @staticmethod
    def scored_skeletons(entry: ScoredEntry, segmentation: Volume) -> Skeletons:
        """The skeletons whose nodes `count` counts where there are no labels."""
        *_, chosen = skeleton_sets(entry, segmentation).values()
        return chosen

    def _count_voxels(
        self, segmentations: Sequence[Volume], ground_truth: GroundTruth, entry: ScoredEntry
    ) -> list[Counted]:
        names = [table_name(Path(volume.name).name, entry) for volume in segmentations]
        by_name = dict(zip(names, segmentations, strict=True))
        missing = {name: volume for name, volume in by_name.items() if name not in self.tables}
        counted = dict(self.tables)
        if missing:
            tables = count_together(list(missing.values()), ground_truth, threads=self.threads)
            counted |= zip(missing, tables, strict=True)
        for name, volume in by_name.items():
            check_scored(counted[name], volume, ground_truth)
        return [counted[name] for name in names]


def table_name(array: str, entry: ScoredEntry) -> str:
    """The name of the table of an array, `fragments` or `segments`, and an entry."""
    return f"{array} {entry.name}"


def read_counted(files: Sequence[Sequence[Path]]) -> dict[str, Counted]:
    """The tables of all volumes, each of which comes in one file per shard."""
    return {name: counted for shards in files for name, counted in read_tables(shards).items()}


def counted_unit(dataset: ScoredDataset, entry: ScoredEntry) -> str:
    """The unit that `ScoringInputs.count` counts for an entry, in words."""
    return "voxels" if dataset.has_labels(entry) else "skeleton nodes"


def skeleton_sets(entry: ScoredEntry, fragments: Volume) -> dict[str, Skeletons]:
    """The skeletons of an entry by their key in JSON; empty if it has none.

    `skeletons`: the parts inside the scored box; `skeletons_masked`: the published parts.
    """
    if entry.skeletons is None:
        return {}
    box = fragments.box.to_nm(fragments.voxel_size_nm)
    return open_skeletons(entry.skeletons, box.intersect(entry.roi_nm) if entry.roi_nm else box)


def open_fragments(store: Path) -> Volume:
    """The fragments (Z, Y, X) in a store."""
    return open_volume(store, "fragments")


def _store(stores: Mapping[str, Path], volume: str, option: str) -> Path:
    if volume not in stores:
        raise ConfigError(f"no --{option} for volume {volume!r}; add --{option} {volume}=PATH")
    check_manifest(stores[volume])
    return stores[volume]
