"""Where the parts of a volume are read from: files, addresses, the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from retrace.config.dataset_model import Bucket, Dataset, DatasetBase, DatasetVolume
from retrace.config.examples_model import ExamplesDataset
from retrace.config.splits import SPLITS
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.formats.examples_source import ExamplesSource
from retrace.formats.precomputed import check_local_layer
from retrace.formats.source import Source
from retrace.relative_paths import relative_path
from retrace.remote.addresses import check_address, is_address, is_zarr, local_folder

OUR_BUCKET = "s3:///"
"""How an address in the bucket of config.yaml begins, until `located` fills in the bucket."""


PARTS = ("raw", "labels", "labels_mask", "tissue_mask")
"""Parts of a volume that have one source."""


NAMED_PARTS = ("inputs", "outputs", "outputs_mask", "segmentations")
"""Parts of a volume that have several sources, each with a name: further images, labels of several
outputs and their masks, segmentations by others."""

DatasetT = TypeVar("DatasetT", bound=DatasetBase)
SourceT = TypeVar("SourceT", bound=Source)


def example_files(examples: ExamplesSource, *parts: str) -> list[str]:
    """Paths of single examples: of `train`, `test` and `archive`, or of some of these."""
    if examples.archive is not None:
        return [examples.archive.path]
    arrays = {"train": examples.train, "test": examples.test}
    pairs = [arrays[part] for part in parts or arrays if part in arrays]
    return [path for pair in pairs if pair for path in (pair.values.path, pair.labels.path)]


def named_files(dataset: DatasetBase) -> list[str]:
    """Paths of all files that a dataset is read from."""
    if isinstance(dataset, ExamplesDataset):
        return example_files(dataset.examples)
    sources = [source for volume in dataset.volumes.values() for source in sources_of(volume)]
    paths = [str(local_folder(s.path) or "") if is_address(s.path) else s.path for s in sources]
    if (mask := _defect_mask(dataset)) is not None:
        paths.append(str(local_folder(mask.path) or mask.path))
    entries = [entry for split in SPLITS[1:] for entry in dataset.entries(split)]
    paths += [entry.skeletons.path for entry in entries if entry.skeletons is not None]
    return [path for path in paths if path]


def _defect_mask(dataset: DatasetBase) -> Source | None:
    """The layer that marks defects of sections to align."""
    alignment = dataset.alignment if isinstance(dataset, Dataset) else None
    return None if alignment is None else alignment.mask


def check_carried(dataset: DatasetBase, bucket: str) -> None:
    """Refuses streamed volumes that no rule fetches: they cannot be packed (ConfigError)."""
    mask = _defect_mask(dataset)
    sources = [] if mask is None else [("the mask of the sections", mask)]
    for name, volume in dataset.volumes.items():
        own = dataset.bucket if isinstance(dataset, Dataset) else None
        stored = f"s3://{bucket}/{bucket_key(own, name)}"
        sources += [(f"volume {name!r}", s) for s in sources_of(volume) if s.path != stored]
    for what, source in sources:
        if is_address(source.path) and local_folder(source.path) is None:
            raise ConfigError(
                f"{what} of dataset {dataset.name!r} is streamed from {source.path}, which no rule "
                "fetches, so it cannot be packed. Copy that layer or zarr to this machine and name "
                "its folder as file:///FOLDER; volumes of the bucket (`bucket: {read: blocks}`) "
                "are fetched"
            )


def bucket_key(bucket: Bucket | None, volume: str) -> str | None:
    """The key of a volume that is streamed from the bucket, None for a dataset without any."""
    if bucket is None or bucket.read != "blocks":
        return None
    return f"{bucket.prefix}/{volume}.zarr"


def sources_of(volume: DatasetVolume) -> list[Source]:
    """Everything that a volume is read from."""
    single = [getattr(volume, part) for part in PARTS]
    named = [s for part in NAMED_PARTS for s in getattr(volume, part).values()]
    return [source for source in single if source is not None] + named


def located(dataset: DatasetT, config: WorkflowConfig) -> DatasetT:
    """The dataset with every address complete: bucket, server and credentials.

    With a mirror, volumes of the bucket are read from its folder. ConfigError for an address that
    cannot be read.
    """
    volumes = {name: _located_volume(v, config) for name, v in dataset.volumes.items()}
    changes: dict[str, Any] = {"volumes": volumes}
    if isinstance(dataset, Dataset) and dataset.alignment is not None and dataset.alignment.mask:
        mask = _located(dataset.alignment.mask, config)
        changes["alignment"] = dataset.alignment.model_copy(update={"mask": mask})
    return dataset.model_copy(update=changes)


def _located_volume(volume: DatasetVolume, config: WorkflowConfig) -> DatasetVolume:
    changes: dict[str, Source | Mapping[str, Source]] = {}
    for part in PARTS:
        if (source := getattr(volume, part)) is not None:
            changes[part] = _located(source, config)
    for part in NAMED_PARTS:
        if named := getattr(volume, part):
            changes[part] = {name: _located(source, config) for name, source in named.items()}
    return volume.model_copy(update=changes)


def _located(source: SourceT, config: WorkflowConfig) -> SourceT:
    path = source.path
    if path.startswith(OUR_BUCKET):
        key = path.removeprefix(OUR_BUCKET)
        if config.mirror:
            return source.model_copy(update={"path": f"{config.mirror}/{key}"})
        path = f"s3://{config.bucket}/{key}"
    if not is_address(path):
        # Always spelled the same: `./a//b/`, and `/here/a/b`, are `a/b`.
        return source.model_copy(update={"path": relative_path(PurePath(path))})
    check_address(path, source.array)
    server = {"endpoint_url": config.endpoint_url, "unsigned": config.unsigned}
    return source.model_copy(update={"path": path, **(server if "s3://" in path else {})})


def check_layers(dataset: DatasetBase) -> None:
    """Refuses layers on this machine that lack the mip or a region that is used (DataError)."""
    for split in SPLITS:
        for entry in dataset.entries(split):
            raw = dataset.volumes[entry.volume].raw
            if is_address(raw.path) and not is_zarr(raw.path):
                check_local_layer(raw, entry.roi_nm)
