"""Writes a file of training stacks sampled from sections, with its coordinates and manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retrace.alignment.stack_sampling import (
    DEFECTS,
    DISPLACEMENT,
    AtLeast,
    SampledStack,
    StackSampler,
    StackSources,
    read_coordinates,
    write_coordinates,
)
from retrace.alignment.stack_writer import resumable_stack, write_stacks
from retrace.errors import ConfigError
from retrace.geometry import NmTriple, in_nm
from retrace.planning.stack_settings import SampleSettings
from retrace.records.record import work_digest
from retrace.replacement import declare_with, remove_afterwards
from retrace.storage.images import open_image
from retrace.storage.manifest import write_manifest
from retrace.storage.reads import local_paths, remote_reads, same_version, volume_version
from retrace.storage.volumes import Volume, open_source, open_volume


def write_stack_set(
    settings: SampleSettings, ground_truth: Path | None, work: Path | None, output: Path
) -> int:
    """Samples the stacks of one split into `output` (h5 or zarr); returns their number.

    `ground_truth`: store of the known displacements and defects of the sections. `work`: where an
    interrupted run resumes; next to `output` if None. The corners of the stacks are saved next to
    `output`. ConfigError if no such stacks can be sampled.
    """
    begin = time.monotonic()
    sources = open_stack_sources(settings, ground_truth)
    stacks = settings.stacks
    sampler = StackSampler(sources, stacks, settings.split, settings.seed)
    fixed = _fixed_corners(settings, sampler)
    count = len(fixed) or stacks.count_of(settings.split)
    own_work = _stack_work_folder(settings, sources.sections, work, output)
    corners: list[NmTriple] = []

    def draw(number: int) -> SampledStack:
        return sampler.read_at(fixed[number]) if fixed else sampler.draw(number)

    def samples() -> Iterator[SampledStack]:
        for number in range(count):
            sample = resumable_stack(own_work, number, draw)
            corners.append(sample.corner_nm)
            yield sample

    size = sources.sections.voxel_size_nm
    attrs = {"mip": settings.source.mip, "resolution": list(size)}
    with same_version(own_work, sources.sections, sources.bad):
        write_stacks(output, settings.name, samples(), count, attrs)
    shape_nm = in_nm(sampler.shape, size)
    declare_with(output, coordinates_path(output))
    write_coordinates(coordinates_path(output), corners, shape_nm)
    _write_stack_manifest(settings, sources, ground_truth, output, begin, count)
    remove_afterwards(own_work)
    return count


def open_stack_sources(settings: SampleSettings, ground_truth: Path | None) -> StackSources:
    """Opens the sections, their defect mask and their ground truth."""
    bad = None
    if settings.mask is not None:
        volume = open_source(settings.mask)
        bad = replace(volume, array=AtLeast(volume.array, settings.mask.defect_from))
    applied = (
        {}
        if ground_truth is None
        else {array: open_volume(ground_truth, array) for array in (DISPLACEMENT, DEFECTS)}
    )
    return StackSources(
        sections=open_image(settings.source),
        bad=bad,
        displacement=applied.get(DISPLACEMENT),
        defects=applied.get(DEFECTS),
        near_px=settings.near_px,
    )


def _fixed_corners(settings: SampleSettings, sampler: StackSampler) -> list[NmTriple]:
    """The corners in the file `coordinates`, for the training split; none without such a file.

    ConfigError for a stack that reaches into the sections for validation.
    """
    path = settings.stacks.coordinates
    if path is None or settings.split != "train":
        return []
    size = sampler.sources.sections.voxel_size_nm
    finest_nm = open_source(settings.source.with_(mip=0)).voxel_size_nm
    corners = read_coordinates(Path(path), size, sampler.shape, finest_nm)
    if corners and settings.stacks.validation_count:
        _check_before_validation(path, corners, sampler)
    return corners


def _check_before_validation(path: str, corners: Sequence[NmTriple], sampler: StackSampler) -> None:
    """ConfigError if a training stack ends after the last training section."""
    first = max(sampler.offset_of(corner)[0] for corner in corners)
    last, end = first + sampler.shape[0], sampler.box.end[0]
    if last > end:
        raise ConfigError(
            f"{path} has a stack that ends before section {last}, and sections from {end} on are "
            "for validation; leave the stack out, or set `validation_count: 0`"
        )


def coordinates_path(output: Path) -> Path:
    """`x/main_train.h5` -> `x/main_train.coordinates.json`."""
    return output.with_name(f"{output.stem}.coordinates.json")


def _stack_work_folder(
    settings: SampleSettings, sections: Volume, work: Path | None, output: Path
) -> Path:
    """Folder of the finished stacks of an unfinished file with these settings and sections."""
    version = volume_version(sections, settings.source.path) if work else 0
    base = work or output.with_name(f".{output.name}.work")
    return base.with_name(
        f"{base.name}_{work_digest({'settings': settings.plain(), 'version': version})}"
    )


def _write_stack_manifest(
    settings: SampleSettings,
    sources: StackSources,
    ground_truth: Path | None,
    output: Path,
    begin: float,
    count: int,
) -> None:
    mask = settings.mask
    volumes = [settings.source, *([mask] if mask else [])]
    inputs = [*local_paths(volumes), *([ground_truth] if ground_truth else [])]
    write_manifest(
        output,
        inputs=inputs,
        settings=settings.plain(),
        seconds=time.monotonic() - begin,
        extra={"stacks": count},
        read=remote_reads(sources.sections, sources.bad),
    )
