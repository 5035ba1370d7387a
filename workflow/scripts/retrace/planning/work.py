"""How much a planned job has to do: the iterations of a training, the voxels of a volume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.mask_model import MaskSettings
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.errors import RetraceError
from retrace.files import digest
from retrace.formats.source import Source
from retrace.geometry import chunk_count, voxels_to_cover
from retrace.job import Job
from retrace.planning.experiment import Planner
from retrace.planning.paths import CLASSIFIER
from retrace.planning.predict import predict_settings
from retrace.planning.predict_settings import PredictionSettings
from retrace.planning.train_settings import TrainSettings
from retrace.planning.volume_layout import source_layout
from retrace.settings_model import deciding
from retrace.storage.chunk_edges import fragment_chunks, prediction_chunks
from retrace.storage.shards import shard_of

ITERATION, MVOXEL, JOB = "iteration", "Mvoxel", "job"
"""Units of work. A job whose size nothing states is compared with jobs that are the same."""

STEPS = {
    "fragments": ("fragments", "edges"),
    "edges": ("edges",),
    "segment": ("join", "apply"),
    "join": ("join",),
}
"""Steps of rules that segment a volume; a job on one shard does the first or the last of two."""
PREDICTING = ("network", "heads", "dtype", "precision", "tile")
SEGMENTING = ("method", "block_shape", "block_context", "fragments_in_xy")
COSTLY = {
    "train": ("network", "autocontext", "precision"),
    "predict": PREDICTING,
    "predict_whole": PREDICTING,
    "fragments": SEGMENTING,
    "edges": SEGMENTING,
    **dict.fromkeys(("join", "apply", "assemble", "mask", "fetch"), ()),
}
"""By step, the settings that decide the cost of a unit; for other steps, all settings do."""
VALUE_BYTES = {"uint8": 1, "float32": 4}
FREE_OF_NETWORK = ("name", "optimizer", "iterations")
"""Settings of a network on which the cost of an iteration, or of a voxel, does not depend."""


@dataclass(frozen=True)
class Work:
    """What a job has to do: its steps, on `amount` units, None where planning cannot know it.

    `alike`: the same for jobs whose units cost the same. `computes`: whether it uses a GPU where
    there is one. `longest_s`: the time after which the job ends by itself. `written_bytes`,
    `written_files`: of its arrays of voxels, at most, not compressed. `network`, `input_shape`,
    `voxel_size_nm`: they select the measured rate.
    """

    steps: tuple[str, ...]
    unit: str
    amount: float | None
    alike: str
    computes: bool = False
    longest_s: float | None = None
    written_bytes: float | None = None
    written_files: float | None = None
    network: str | None = None
    input_shape: tuple[int, ...] = ()
    voxel_size_nm: Sequence[float] | None = None


def steps_of(rule: str, *, is_shard: bool) -> tuple[str, ...]:
    """The steps of a rule's job; rules that are not in STEPS have one, with the rule's name."""
    if rule.startswith("assemble_"):
        return ("assemble",)
    steps = STEPS.get(rule, (rule,))
    if not is_shard:
        return steps
    return steps[-1:] if rule == "segment" else steps[:1]


def alike(steps: Sequence[str], settings: Any, gpus: int = 1, inputs: Iterable[str] = ()) -> str:
    """The digest of what decides how long a unit of work takes.

    `settings`: those that decide a result, as in records (`deciding`). `inputs`: the files that are
    read; a classifier of edges among them needs time and memory.
    """
    costly = COSTLY.get(steps[0])
    if costly is not None:
        settings = {name: _without_free(settings.get(name)) for name in costly}
    learned = ["classifier"] if any(Path(name).name == CLASSIFIER for name in inputs) else []
    return digest([list(steps), settings, gpus, *learned])


def _without_free(setting: Any) -> Any:
    if not isinstance(setting, Mapping):
        return setting
    return {name: value for name, value in setting.items() if name not in FREE_OF_NETWORK}


def work_of(planner: Planner, rule: str, job: Job, wildcards: Mapping[str, str]) -> Work:
    """The work of a job; without an amount where no file states the size of a volume yet."""
    settings, shard = job.settings, shard_of(job.execution)
    steps = steps_of(rule, is_shard=shard.count > 1)
    if isinstance(settings, TrainSettings):
        return _training(steps, settings)
    if isinstance(settings, PredictionSettings):
        return _prediction(steps, settings, shard.count, _voxel_size(planner, wildcards))
    same = alike(steps, deciding(settings), inputs=map(str, job.inputs.values()))
    if isinstance(settings, MaskSettings):
        return Work(steps, MVOXEL, _millions(_size_of(settings.labels)), same)
    if rule in STEPS or steps == ("assemble",):
        return _segmentation(planner, steps, job, wildcards, same)
    return Work(steps, JOB, None if job.copies else 1, same)


def _training(steps: tuple[str, ...], settings: TrainSettings) -> Work:
    same = alike(steps, deciding(settings), settings.gpus)
    traits = _traits(settings.network, settings.gpus)
    limit = settings.seconds
    return Work(steps, ITERATION, settings.iterations, same, True, limit, **traits)


def _prediction(
    steps: tuple[str, ...],
    settings: PredictionSettings,
    shards: int,
    voxel_size_nm: Sequence[float],
) -> Work:
    shape, heads = predicted_shape(settings, voxel_size_nm), settings.stored_heads()
    mvoxels = _millions(shape, shards)
    voxel_bytes = VALUE_BYTES[settings.dtype] * sum(heads.values())
    files = _files(settings.zarr_format, shape, prediction_chunks(_stride(settings.network)))
    return Work(
        steps,
        MVOXEL,
        mvoxels,
        alike(steps, deciding(settings), settings.gpus),
        computes=True,
        written_bytes=None if mvoxels is None else mvoxels * 1e6 * voxel_bytes,
        written_files=None if files is None else files * len(heads) / shards,
        voxel_size_nm=voxel_size_nm,
        **_traits(settings.network, settings.gpus),
    )


def _traits(network: VoxelNetworkSettings, gpus: int) -> dict[str, Any]:
    """What selects a measured rate; rates are for one sample per iteration, on one device."""
    is_measured = gpus == 1 and network.batch_size == 1
    return {"network": network.name, "input_shape": network.input_shape} if is_measured else {}


def _segmentation(
    planner: Planner, steps: tuple[str, ...], job: Job, wildcards: Mapping[str, str], same: str
) -> Work:
    """The work of a job on the prediction of a volume, or on one shard of it."""
    dataset, network = wildcards["dataset"], wildcards["network"]
    data = planner.dataset(dataset, trained=None)
    net = planner.network(dataset, network)
    predicted = predict_settings(planner.config, data, net, wildcards["volume"])
    shape, shards = predicted_shape(predicted, data.voxel_size_nm), shard_of(job.execution).count
    files = None
    if {"fragments", "apply"} & set(steps):
        block = planner.config.segment.complete().block_shape
        files = _files(planner.config.zarr_format, shape, fragment_chunks(block))
    return Work(
        steps,
        MVOXEL,
        _millions(shape, shards),
        same,
        written_files=None if files is None else files / shards,
    )


def _voxel_size(planner: Planner, wildcards: Mapping[str, str]) -> Sequence[float]:
    size: Sequence[float] = planner.dataset(wildcards["dataset"], trained=None).voxel_size_nm
    return size


def _stride(network: VoxelNetworkSettings) -> tuple[int, ...]:
    """Total stride of a network, as its module has it: 1 but for the pooling of a U-Net."""
    factors = network.downsample if isinstance(network, LsdNetworkSettings) else ()
    return tuple(math.prod(factor[axis] for factor in factors) for axis in range(3))


def _files(zarr_format: int, shape: Sequence[int] | None, chunks: Sequence[int]) -> int | None:
    """Files of an array in format 2, at most; those of format 3 depend on the tile."""
    return None if shape is None or zarr_format == 3 else chunk_count(shape, chunks)


def _millions(shape: Sequence[int] | None, shards: int = 1) -> float | None:
    """Millions of voxels of one shard."""
    return None if shape is None else math.prod(shape) / shards / 1e6


def predicted_shape(
    settings: PredictionSettings, voxel_size_nm: Sequence[float]
) -> tuple[int, ...] | None:
    """Voxels (z, y, x) of a prediction, at most; None where a file has to be computed first."""
    volume = settings.volume
    if volume.roi_nm is not None:
        return voxels_to_cover(volume.roi_nm.shape, voxel_size_nm)
    size = _size_of(volume.raw if volume.roi_of is None else volume.roi_of)
    if size is None or volume.roi_of is None:
        return size
    margins = voxels_to_cover(volume.margin_nm, voxel_size_nm)
    return tuple(edge + 2 * margin for edge, margin in zip(size, margins, strict=True))


def _size_of(source: Source) -> tuple[int, ...] | None:
    """Voxels (z, y, x) of an array on this machine; None where it is not known here."""
    try:
        layout = source_layout(source)
    except RetraceError:
        return None
    return None if layout is None else layout.shape[-3:]
