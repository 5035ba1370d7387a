"""The four steps of a segmentation as jobs: fragments, edges, joining of fragments, segments.

On one machine the first job writes fragments and edges, and the last one segments. In shards,
fragments, edges and segments are separate jobs for each shard; only joining covers the whole
volume, and it reads only the region graph.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import ConfigError
from retrace.planning.segment_settings import SegmentationSettings
from retrace.records.record import work_digest
from retrace.replacement import remove_afterwards
from retrace.segmentation.apply import (
    fragments_with_ids,
    open_graph,
    read_threshold,
    write_segments,
)
from retrace.segmentation.edge_columns import edge_columns
from retrace.segmentation.edge_files import EdgeFiles, write_graph
from retrace.segmentation.fragment_store import FragmentStore
from retrace.segmentation.grid import FragmentIds
from retrace.segmentation.inputs import SegmentationInputs, open_segmentation_inputs
from retrace.segmentation.volume import block_grid, blocks_at_once, make_edges, make_fragments
from retrace.storage.chunk_edges import fragment_chunks
from retrace.storage.manifest import (
    check_manifest,
    input_digest,
    reading,
    write_manifest,
)
from retrace.storage.reads import local_paths, remote_reads, same_version
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.volumes import open_group, open_volume, zarr_format_of
from retrace.storage.zarr_writer import publish, write_list, writing

WORK_FORMAT = 3
"""Version of the files in the scratch folder; a job does not resume from another version."""


@dataclass(frozen=True)
class BlockJob:
    """A job that computes the blocks of a shard: what it reads, and what it writes.

    `fragments`: the fragments of all shards, for edges. `work`: folder that holds the scratch of
    all jobs.
    """

    settings: SegmentationSettings
    prediction: Path
    work: Path
    output: Path
    shard: Shard = SINGLE_SHARD
    fragments: Path | None = None

    @property
    def input_stores(self) -> list[Path]:
        """Every store on this machine that the job reads."""
        stores = [self.prediction, *([self.fragments] if self.fragments else [])]
        sources = [self.settings.tissue_mask, self.settings.raw if self.writes_edges else None]
        return stores + local_paths(source for source in sources if source)

    @property
    def writes_edges(self) -> bool:
        """Whether edges are written; of shards, that is another job than that of fragments."""
        return self.shard == SINGLE_SHARD or self.fragments is not None

    @property
    def partial(self) -> Path:
        """Where the output is written until it is complete."""
        return self.output.with_name(self.output.name + ".partial")

    def open_inputs(self) -> SegmentationInputs:
        """The prediction, and the volumes of the dataset, checked."""
        return open_segmentation_inputs(
            self.prediction, self.settings, describes_edges=self.writes_edges
        )

    def scratch(self, inputs: SegmentationInputs) -> Path:
        """The scratch folder of this job alone: its name is a digest of all that decides it."""
        streamed = [v.reader.record.version for v in inputs.volumes if v and v.reader]
        identity: dict[str, Any] = {
            "settings": {k: v for k, v in self.settings.plain().items() if k != "thresholds"},
            "in": [*(input_digest(store) for store in self.input_stores), *streamed],
            "output": str(self.output.resolve()),
            "shard": str(self.shard),
            "format": WORK_FORMAT,
        }
        return self.work / work_digest(identity)

    def publish(self, inputs: SegmentationInputs, begin: float, facts: Mapping[str, Any]) -> None:
        """Renames the finished store and writes its manifest, the manifest last."""
        publish(self.partial, self.output)
        write_manifest(
            self.output,
            inputs=self.input_stores,
            settings=self.settings.plain(),
            seconds=time.monotonic() - begin,
            extra={**facts, "shard": str(self.shard)},
            read=remote_reads(*inputs.volumes),
        )


def check_shard(shard: Shard, settings: SegmentationSettings) -> None:
    """Raises ConfigError for a shard of a volume that is a single block."""
    if shard.count > 1 and settings.block_shape is None:
        raise ConfigError(
            f"shard {shard} of a volume that is one block; set `segment: block_shape` "
            "(z, y, x voxels), for example [256, 512, 512]"
        )


def write_fragments(job: BlockJob) -> None:
    """Writes `fragments.zarr`, its manifest last: fragments and counts, and edges and scores too
    if the volume is not in shards."""
    begin = time.monotonic()
    settings = job.settings
    check_shard(job.shard, settings)
    inputs = job.open_inputs()
    work = job.scratch(inputs)
    threads = blocks_at_once(inputs.affinities.box, settings)
    grid, chunks = block_grid(inputs.affinities, settings), fragment_chunks(settings.block_shape)
    store = FragmentStore(
        job.partial,
        work,
        inputs.affinities,
        grid,
        chunks,
        job.shard,
        zarr_format=settings.zarr_format,
    )
    facts = {"blocks": len(store.mine)}
    with same_version(work, *inputs.volumes):
        make_fragments(inputs, store, settings, threads)
        if job.writes_edges:
            files = None if settings.is_mutex else EdgeFiles(work, store.fragments, store.grid)
            if files:
                make_edges(inputs, files, settings, threads)
            facts["edges"] = write_graph(store.group, files, edge_columns(inputs, settings))
    store.journal.keep(job.output)
    job.publish(inputs, begin, facts)
    remove_afterwards(work)


def write_edges(job: BlockJob) -> None:
    """Writes edges and scores of the blocks of a shard, the manifest last."""
    begin = time.monotonic()
    settings = job.settings
    inputs = job.open_inputs()
    if job.fragments is None:
        raise ConfigError("edges need the fragments of all shards; give their store")
    check_manifest(job.fragments)
    threads = blocks_at_once(inputs.affinities.box, settings)
    fragments = open_volume(job.fragments, "fragments")
    work = job.scratch(inputs)
    files = EdgeFiles(work, fragments, block_grid(inputs.affinities, settings), job.shard)
    if not settings.is_mutex:
        with same_version(work, *inputs.volumes):
            make_edges(inputs, files, settings, threads)
    shutil.rmtree(job.partial, ignore_errors=True)
    group = zarr.open_group(job.partial, mode="w", zarr_format=settings.zarr_format)
    columns = edge_columns(inputs, settings)
    edges = write_graph(group, None if settings.is_mutex else files, columns)
    files.journal.keep(job.output)
    job.publish(inputs, begin, {"blocks": len(files.mine), "edges": edges})
    remove_afterwards(work)


def write_lookup_table(
    fragments: Path, threshold_file: Path, output: Path, classifier: Path | None = None
) -> None:
    """Writes `segments` (N,) uint64, the segment of every fragment, and the manifest last."""
    begin = time.monotonic()
    check_manifest(fragments)
    threshold = read_threshold(threshold_file)
    graph = open_graph(fragments, classifier)
    segments = graph.segments(threshold)
    with writing(output) as partial:
        zarr_format = zarr_format_of(graph.fragments)
        group = zarr.open_group(partial, mode="w", zarr_format=zarr_format)
        write_list(group, "segments", segments).attrs["threshold"] = threshold
    write_manifest(
        output,
        inputs=[fragments, threshold_file, *([classifier] if classifier else [])],
        settings={},
        seconds=time.monotonic() - begin,
        extra=_joined(graph.ids, segments, threshold),
    )


def _joined(ids: FragmentIds, segments: np.ndarray, threshold: float) -> dict[str, Any]:
    """Numbers for the manifest: threshold, fragments, and how many became part of another."""
    joined = int(np.count_nonzero(segments != ids.ids()))
    return {"threshold": threshold, "fragments": len(segments), "joined_fragments": joined}


def read_lookup_table(path: Path, ids: FragmentIds, threshold: float) -> np.ndarray:
    """The segment of every fragment, (N,) uint64, as `write_lookup_table` wrote them.

    Raises ConfigError if they are of other fragments or another threshold.
    """
    check_manifest(path)
    array: Any = open_group(path)["segments"]
    if array.shape != (ids.total,) or array.attrs["threshold"] != threshold:
        raise ConfigError(f"{path} is not of these fragments and this threshold; delete it, rerun")
    with reading(path):
        return np.asarray(array[...])


def write_segmentation(
    fragments: Path,
    threshold_file: Path,
    output: Path,
    lookup_table: Path | None = None,
    shard: Shard = SINGLE_SHARD,
    classifier: Path | None = None,
) -> None:
    """Writes `segmentation.zarr` (segments) and its manifest, the manifest last.

    Without `lookup_table` the fragments are joined here; with it, the graph is not read.
    """
    begin = time.monotonic()
    check_manifest(fragments)
    threshold = read_threshold(threshold_file)
    volume, ids = fragments_with_ids(fragments)
    if lookup_table is None:
        segments = open_graph(fragments, classifier).segments(threshold)
    else:
        segments = read_lookup_table(lookup_table, ids, threshold)
    with writing(output) as partial:
        voxels = write_segments(volume, ids, segments, threshold, partial, shard)
    write_manifest(
        output,
        inputs=[fragments, threshold_file, *filter(None, [lookup_table, classifier])],
        settings={},
        seconds=time.monotonic() - begin,
        extra={**_joined(ids, segments, threshold), "voxels": voxels, "shard": str(shard)},
    )
